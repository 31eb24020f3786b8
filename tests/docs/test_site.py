"""The site: every page and every public name has its place; it builds without warnings.

The build needs the extra ``docs``, and is skipped without it.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.tree import ROOT

import fdmux
import fdmux.framing
import fdmux.hosts.asyncio
from fdmux.__main__ import make_parser

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DOCS = ROOT / "docs"
REFERENCE = "\n".join(
    path.read_text(encoding="utf-8") for path in (DOCS / "reference").glob("*.md")
)
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Of the standard library, or modules and numbers, which a class or page explains.
NOT_DOCUMENTED_HERE = {
    *("EVENT_READ", "EVENT_WRITE", "SelectorKey"),
    *("ABI_VERSION", "__version__", "aio", "framing", "hosts"),
}


def listed_pages() -> list[str]:
    """The pages of the tables of contents, in their order."""
    text = (DOCS / "index.md").read_text(encoding="utf-8")
    lines = [line for tree in TOCTREE.findall(text) for line in tree.splitlines()]
    entries = [line for line in lines if line and not line.startswith(":")]
    return [re.sub(r".*<(.*)>$", r"\1", entry) for entry in entries]


def test_every_page_is_listed_once() -> None:
    pages = listed_pages()
    assert len(set(pages)) == len(pages)
    written = {
        str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")
    }
    assert {page for page in pages if not page.startswith("..")} == written - {"index"}


def test_every_example_is_in_the_list_of_examples() -> None:
    text = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    folders = {path.parent.name for path in (ROOT / "examples").glob("*/README.md")}
    assert folders - set(re.findall(r"\]\(([\w-]+)(?:/README\.md)?\)", text)) == set()


def test_every_public_name_is_in_the_reference() -> None:
    documented = set(re.findall(r"^\.\. auto\w+:: (\S+)", REFERENCE, re.MULTILINE))
    names = {f"fdmux.{name}" for name in set(fdmux.__all__) - NOT_DOCUMENTED_HERE}
    names |= {f"fdmux.hosts.asyncio.{name}" for name in fdmux.hosts.asyncio.__all__}
    assert names - documented == set()
    for name in fdmux.framing.__all__:
        assert {f"fdmux.{name}", f"fdmux.framing.{name}"} & documented


def arguments_of(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Every command and option of the command line, but for --help."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, command in action.choices.items():
                yield name
                yield from arguments_of(command)
        yield from (option for option in action.option_strings if option != "--help")


def test_every_command_and_option_is_on_its_page() -> None:
    text = (DOCS / "reference" / "command.md").read_text(encoding="utf-8")
    words = set(re.findall(r"[\w-]+", text))
    assert {name for name in arguments_of(make_parser()) if name != "-h"} <= words


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("sphinx", "furo", "myst_parser", "sphinx_copybutton"):
        if importlib.util.find_spec(module) is None:
            pytest.skip("needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "sphinx", "-n", "-W", "--keep-going", "-q"]
    done = subprocess.run(
        [*command, "-c", str(DOCS), str(ROOT), str(folder)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder


@pytest.mark.slow
def test_site_builds_without_a_warning(site: Path) -> None:
    index = (site / "docs" / "index.html").read_text(encoding="utf-8")
    assert "One I/O event core" in index
    assert "url=docs/index.html" in (site / "index.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_links_within_the_site_lead_somewhere(site: Path) -> None:
    """Each `href` and `src` of each page, with its anchor."""
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    ids = {
        path: set(re.findall(r'\bid="([^"]+)"', text)) for path, text in pages.items()
    }
    broken = []
    for path, text in pages.items():
        for link in re.findall(r'\b(?:href|src)="([^"]+)"', text):
            target, _, anchor = link.partition("#")
            if re.match(r"\w+:", link):
                continue
            found = (
                (path.parent / target.partition("?")[0]).resolve() if target else path
            )
            if not found.exists() or (
                anchor and anchor not in ids.get(found, {anchor})
            ):
                broken.append((str(path.relative_to(site)), link))
    assert broken == []


@pytest.mark.slow
def test_pages_fetch_nothing_from_elsewhere(site: Path) -> None:
    """Not even a font; so they can be read, and searched, without a network."""
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|link)[^>]*\b(?:src|href)="https?:', text)
    index = (site / "searchindex.js").read_text(encoding="utf-8")
    for word in ("fdmux_hold_gil", "start_tls", "docs/tutorials/chat"):
        assert word in index
