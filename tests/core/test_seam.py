"""The seam: only the files of csrc/platform name what a single system has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from tests.core.test_order import COMMENT_OR_STRING, CSRC
from tests.tree import ROOT

# What Windows, macOS or a BSD lacks, or has under another name.
FOREIGN = re.compile(
    r"\b(eventfd|accept4|pipe2|ppoll|recvmmsg|sendmmsg|mmsghdr|sched_yield"
    r"|SOCK_CLOEXEC|SOCK_NONBLOCK|SO_PROTOCOL|SO_DOMAIN|SO_REUSEPORT|SO_NOSIGPIPE"
    r"|MSG_\w+|CMSG_\w+|IP_\w+|IPV6_\w+|UDP_(?:GRO|SEGMENT)|SHUT_\w+"
    r"|(?:struct )?(?:iovec|msghdr|cmsghdr|pollfd)|nfds_t|iov_\w+|pthread_\w+"
    r"|fcntl|setsockopt|getsockopt|sendmsg|recvmsg|clock_gettime)\b"
    r"|<(?:poll|pthread|sched|fcntl|unistd|sys/(?!epoll)\w+|netinet/\w+"
    r"|arpa/\w+|linux/\w+)\.h>"
)
# The modules for Python include public headers only, so they have one of their own.
PYTHON = Path("python/system.h")


def foreign_names(text: str) -> set[str]:
    includes = re.findall(r"^#\s*include (<[^>]+>)", text, re.MULTILINE)
    code = COMMENT_OR_STRING.sub(" ", text)
    return {match[0] for match in FOREIGN.finditer("\n".join([code, *includes]))}


def files_above() -> list[Path]:
    """The C files that are not of the platform, nor headers for libraries of others."""
    files = [path.relative_to(CSRC) for path in sorted(CSRC.rglob("*.[ch]"))]
    apart = {"platform", "adapters"}
    return [file for file in files if file != PYTHON and not apart & set(file.parts)]


@pytest.mark.parametrize("file", files_above(), ids=str)
def test_file_names_nothing_of_one_system(file: Path) -> None:
    assert foreign_names((CSRC / file).read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    "line",
    [
        "r = pipe2(fds, O_CLOEXEC);",
        "struct iovec part;",
        "#include <poll.h>",
        "pthread_mutex_lock(&lock);",
        "flags = MSG_DONTWAIT;",
    ],
)
def test_foreign_name_is_found(line: str) -> None:
    assert foreign_names(line) != set()


@pytest.mark.parametrize(
    "line", ["/* pipe2(2) */", 'x = "SO_PROTOCOL";', "poll_open();"]
)
def test_other_text_is_not(line: str) -> None:
    assert foreign_names(line) == set()


def test_every_file_of_a_system_is_in_the_list() -> None:
    """One list chooses the files: a file that it does not name would be of no use."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    listed = " ".join(re.findall(r"^set\(_system_\w+ ([^)]+)\)", text, re.MULTILINE))
    present = {path.stem for path in (CSRC / "platform").glob("*.c")}
    assert set(listed.split()) == present - {"memory", "testing"}
