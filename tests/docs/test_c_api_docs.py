"""The reference of the C interface has everything that the headers say.

Names are counted here by expressions of this file's own, not by the tool that writes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from tests.tree import ROOT
from tools import c_api

if TYPE_CHECKING:
    from pathlib import Path

INCLUDE = ROOT / "csrc" / "include"
PAGES = ROOT / "docs" / "c-api"
HEADERS = sorted(path.name for path in INCLUDE.glob("*.h"))

NAMES = re.compile(
    r"^FDMUX_API [^;]*?\b(?P<function>\w+)\("
    r"|^static inline [^{]*?\b(?P<inline>fdmux_\w+)\("
    r"|^struct (?P<struct>\w+) \{"
    r"|^typedef [^;]*?\(\*(?P<type>\w+)\)"
    r"|^#define (?P<macro>FDMUX_(?!\w*H$)\w+)",
    re.MULTILINE,
)
COMMENT = re.compile(r"^/\*(?! cffi:| ---)(.*?)\*/$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def header_text(header: str) -> str:
    return (INCLUDE / header).read_text(encoding="utf-8")


def page_text(header: str) -> str:
    return (PAGES / c_api.page_name(header)).read_text(encoding="utf-8")


def anchors(text: str) -> list[str]:
    plain = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", plain, re.MULTILINE)
    return [*map(c_api.slug, headings), *re.findall(r'<a id="([\w-]+)">', plain)]


def test_pages_are_what_the_headers_make_them() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "c_api.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("header", HEADERS)
def test_every_public_name_has_its_place(header: str) -> None:
    found = {
        f"struct-{name}" if kind == "struct" else name
        for match in NAMES.finditer(header_text(header))
        for kind, name in match.groupdict().items()
        if name
    }
    assert len(found) >= 3
    assert found <= set(anchors(page_text(header)))


@pytest.mark.parametrize("header", HEADERS)
def test_every_function_and_structure_has_a_comment(header: str) -> None:
    read = c_api.parse(INCLUDE / header)
    silent = [
        found.name
        for entry in read.entries
        for found in entry.declarations
        if found.kind in {"function", "inline", "typedef"} and not entry.comment
    ]
    assert silent == []


@pytest.mark.parametrize("header", HEADERS)
def test_every_word_of_every_comment_is_on_the_page(header: str) -> None:
    """No word of a comment before a declaration is lost."""
    page = re.sub(r"\]\([^)]*\)", "", page_text(header))
    page_words = set(re.findall(r"\w+", page.lower()))
    for comment in COMMENT.findall(header_text(header)):
        assert set(re.findall(r"\w+", comment.lower())) <= page_words


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    links = LINK.findall(page.read_text(encoding="utf-8"))
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target.read_text(encoding="utf-8")), link


@pytest.mark.parametrize("header", HEADERS)
def test_anchors_are_unique(header: str) -> None:
    found = anchors(page_text(header))
    assert len(found) == len(set(found))


def test_stranger_s_text_is_refused_not_skipped(tmp_path: Path) -> None:
    strange = tmp_path / "strange.h"
    strange.write_text("/* strange.h: a header. */\nint outside_of_the_style;\n")
    with pytest.raises(SystemExit, match="cannot parse"):
        c_api.parse(strange)
