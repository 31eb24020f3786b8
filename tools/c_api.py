"""Write the reference of the C interface, docs/c-api, from the headers' own comments.

    python tools/c_api.py --write    write docs/c-api/*.md
    python tools/c_api.py --check    exit with 1 if --write would change them

The headers are the source: a comment belongs to the declarations that follow it without
an empty line. This reads only the style of our headers: every declaration starts at the
left edge. The tests of the ABI use `parse` too.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADERS = ROOT / "csrc" / "include"
PAGES = ROOT / "docs" / "c-api"
NAMES = (
    "fdmux.h",
    "fdmux_stream.h",
    "fdmux_tls.h",
    "fdmux_datagram.h",
    "fdmux_frame.h",
    "fdmux_api.h",
    "fdmux_python.h",
)

# One declaration or comment at the left edge; the first that matches is taken.
TOKENS = re.compile(
    r"(?P<comment>/\*.*?\*/[ \t]*\n)"
    r"|(?P<macro>\#define[ \t]+(?:[^\n]*\\\n)*[^\n]*\n)"
    r"|(?P<directive>\#[^\n]*\n)"
    r'|(?P<linkage>extern "C" \{\n|\}\n)'
    r"|(?P<inline>static inline .*?^\}\n)"
    r"|(?P<typedef>typedef .*?;\n)"
    r"|(?P<struct>struct \w+(?:;|\s*\{.*?^\};)[^\n]*\n)"
    r"|(?P<function>FDMUX_API .*?;\n)"
    r"|(?P<variable>(?:static|extern|const) .*?;\n)"
    r"|(?P<gap>[ \t]*\n)",
    re.DOTALL | re.MULTILINE,
)
NAME_OF = {
    "macro": re.compile(r"#define[ \t]+(\w+)"),
    "inline": re.compile(r"(\w+)\("),
    "typedef": re.compile(r"\(\*(\w+)\)|(\w+);"),
    "struct": re.compile(r"struct (\w+)"),
    "function": re.compile(r"(\w+)\("),
    "variable": re.compile(r"(\w+)(?: = [^;]*)?;"),
}
INTRODUCTION = """\
Every function, structure and constant, from the comments of the headers.
[Native code](../native.md) and [Streams](../streams.md) explain how to use them."""
KEYWORDS = {"struct": "struct ", "macro": "#define "}  # in headings
SECTION = re.compile(r"/\* -+ (.+?) -+ \*/")
FENCE = re.compile(r"/\* cffi:(begin|end) \*/")
ERROR_ITEM = re.compile(r"-E[A-Z0-9]+:")
# What is code in a comment's prose: `quoted`, names with an underscore, -ERRNO.
CODE = re.compile(
    r"`([^`]+)`"
    r"|(?<![\w-])(-E[A-Z0-9]{2,}|struct \w*_\w+|\w*_\w*(?:\.h\b|\(\d?\))?)(?!\w)"
)
SPECIAL = re.compile(r"([<>\[\]]|(?<!\w)\*(?!\w+\*))")  # but *emphasis*


@dataclasses.dataclass(frozen=True)
class Declaration:
    """One declaration of a header, with its source text."""

    kind: str
    name: str
    code: str

    @property
    def anchor(self) -> str:
        """The anchor on its page; a function and a structure may have the same name."""
        return f"struct-{self.name}" if self.kind == "struct" else self.name

    @property
    def is_forward(self) -> bool:
        """Whether it is a forward declaration of a structure."""
        return self.kind == "struct" and "{" not in self.code

    @property
    def is_forwarding(self) -> bool:
        """Whether it is a macro that forwards to a function of the same name."""
        return self.kind == "macro" and f"{self.name}(...)" in self.code


@dataclasses.dataclass
class Entry:
    """A comment and its declarations: one heading of the reference."""

    comment: str
    section: str
    declarations: list[Declaration] = dataclasses.field(default_factory=list)

    @property
    def anchors(self) -> list[str]:
        """The anchors of its declarations, in the header's order."""
        return [declaration.anchor for declaration in self.declarations]


@dataclasses.dataclass(frozen=True)
class Header:
    """A header: its opening comment, and its entries in order."""

    name: str
    opening: str
    entries: list[Entry]

    @property
    def declarations(self) -> list[Declaration]:
        """All declarations, in order."""
        return [found for entry in self.entries for found in entry.declarations]


# ---- reading a header ----------------------------------------------------------------


def prose(comment: str) -> str:
    """Return the text of a comment without its frame, line by line."""
    inside = comment.strip()[2:-2]
    lines = [re.sub(r"^ ?\*? ?", "", line).rstrip() for line in inside.split("\n")]
    return "\n".join(lines).strip()


class Reader:
    """Joins comments and declarations into entries, token by token."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.comments: list[str] = []
        self.section = ""
        self.is_open = False  # may a declaration still join the last entry?

    def take(self, kind: str, text: str) -> None:
        """Take the next token."""
        if kind == "comment":
            self.take_comment(text)
        elif kind in NAME_OF:
            self.take_declaration(kind, text)
        elif kind == "gap":
            self.is_open = False

    def take_comment(self, text: str) -> None:
        """Keep a comment for the next declaration; a ruler starts a section instead."""
        section = SECTION.match(text)
        if section:
            self.section = section[1].strip()
        elif not FENCE.match(text):
            self.comments.append(prose(text))
        self.is_open = False

    def take_declaration(self, kind: str, text: str) -> None:
        """Add a declaration to the entry before it without a gap, or to a new one."""
        found = NAME_OF[kind].search(text)
        if found is None:
            raise SystemExit(f"no name in this declaration:\n{text}")
        if not self.is_open:
            self.entries.append(Entry("\n\n".join(self.comments), self.section))
            self.comments.clear()
            self.is_open = True
        name = next(filter(None, found.groups()))
        declaration = Declaration(kind, name, text.rstrip())
        declarations = self.entries[-1].declarations
        # One in each branch of a conditional; the last branch is the default.
        if declarations and declarations[-1].name == name != "":
            declarations.pop()
        declarations.append(declaration)


def body_of(text: str) -> str:
    """Remove the include guard, which is not part of the interface."""
    return re.sub(r"^#define FDMUX_\w*H\n", "", text, count=1, flags=re.MULTILINE)


def parse(path: Path) -> Header:
    """Read a header."""
    text = path.read_text(encoding="utf-8")
    opening, body = re.split(r"(?<=\*/)\n", text, maxsplit=1)
    body = body_of(body)
    reader = Reader()
    at = 0
    while at < len(body):
        token = TOKENS.match(body, at)
        if token is None:
            line = text.count("\n") - body.count("\n", at) + 1
            raise SystemExit(f"{path}:{line}: cannot parse:\n{body[at : at + 80]}")
        reader.take(str(token.lastgroup), token[0])
        at = token.end()
    summary = prose(opening).removeprefix(f"{path.name}: ")
    summary = summary[0].upper() + summary[1:]
    return Header(path.name, summary, reader.entries)


# ---- writing its page ----------------------------------------------------------------


def page_name(header: str) -> str:
    """Return the file name of a header's page."""
    return header.removesuffix(".h") + ".md"


def heading(entry: Entry) -> str:
    """Return the heading of an entry: its names, or the first and last of many."""
    titles = [
        f"`{KEYWORDS.get(found.kind, '')}{found.name}`" for found in entry.declarations
    ]
    return ", ".join(titles) if len(titles) < 4 else f"{titles[0]} to {titles[-1]}"


def slug(title: str) -> str:
    """Return the anchor that Markdown gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


class Page:
    """Writes the page of one header; ``places`` says where each anchor is."""

    def __init__(self, header: Header, places: dict[str, str]) -> None:
        self.header = header
        self.places = places
        self.page = page_name(header.name)

    def text(self) -> str:
        """Write the whole page."""
        parts = [f"# {self.header.name}", self.markdown(self.header.opening, set())]
        parts.append(
            f"Written by `tools/c_api.py` from [{self.header.name}]"
            f"(../../csrc/include/{self.header.name}); change it there."
        )
        section = ""
        for entry in filter(self.is_wanted, self.header.entries):
            if entry.section != section:
                section = entry.section
                parts.append(f"## {section[0].upper()}{section[1:]}")
            parts.extend(self.entry(entry))
        return "\n\n".join(parts) + "\n"

    def is_wanted(self, entry: Entry) -> bool:
        """Whether this page explains the entry, and not the page of another header."""
        return not all(
            found.is_forward and not self.places[found.anchor].startswith(self.page)
            for found in entry.declarations
        )

    def entry(self, entry: Entry) -> list[str]:
        """Write one entry: heading, anchors, the declarations, the comment."""
        title = heading(entry)
        if all(found.is_forwarding for found in entry.declarations):
            return self.forwarding(entry)
        anchors = [anchor for anchor in entry.anchors if anchor != slug(title)]
        parts = [f"### {title}"]
        if anchors:
            parts.append("".join(f'<a id="{name}"></a>' for name in anchors))
        code = "\n".join(map(shown, entry.declarations))
        parts.append(f"```c\n{code}\n```")
        if entry.comment:
            parts.append(self.markdown(entry.comment, set(entry.anchors)))
        return parts

    def forwarding(self, entry: Entry) -> list[str]:
        """Write the macros that stand for functions of another header as links."""
        items = [f"* {self.code(name, set())}" for name in entry.anchors]
        return ["### By name", self.markdown(entry.comment, set()), "\n".join(items)]

    def markdown(self, comment: str, own: set[str]) -> str:
        """Return a comment as Markdown, with names as links."""
        paragraphs = [itemised(part) for part in comment.split("\n\n")]
        return "\n\n".join(self.marked(part, own) for part in paragraphs)

    def marked(self, text: str, own: set[str]) -> str:
        """Mark the code in a paragraph, and escape the rest."""
        pieces = []
        at = 0
        for match in CODE.finditer(text):
            pieces.append(SPECIAL.sub(r"\\\1", text[at : match.start()]))
            pieces.append(self.code(match[1] or match[2], own))
            at = match.end()
        pieces.append(SPECIAL.sub(r"\\\1", text[at:]))
        return "".join(pieces)

    def code(self, text: str, own: set[str]) -> str:
        """Write a piece of code; a known name that is not ``own`` as a link."""
        name = text.removesuffix("()").replace("struct ", "struct-")
        anchor = name if name in self.places else f"struct-{name}"
        place = self.places.get(anchor)
        if place is None or anchor in own:
            return f"`{text}`"
        return f"[`{text}`]({place.removeprefix(self.page) or self.page})"


def itemised(paragraph: str) -> str:
    """Turn lines of errors, one `-EXXX: ...` each, into a list."""
    lines = []
    is_list = False
    for line in paragraph.split("\n"):
        is_list = is_list or bool(ERROR_ITEM.match(line))
        is_next = is_list and not line.startswith(" ")
        lines.append(f"- {line}" if is_next else line.strip() if not is_list else line)
    return "\n".join(re.sub(r"^ +", "  ", line) for line in lines)


def shown(declaration: Declaration) -> str:
    """Return a declaration without its body and export macro."""
    if declaration.kind == "inline":
        return declaration.code.split("\n{")[0] + ";"
    if declaration.kind == "function":
        code = declaration.code.removeprefix("FDMUX_API ")
        return code.replace("\n" + " " * len("FDMUX_API "), "\n")
    return declaration.code


def index(headers: list[Header]) -> str:
    """Write the index: every function of every header."""
    parts = [
        "# The C interface",
        INTRODUCTION,
    ]
    for header in headers:
        page = page_name(header.name)
        summary = header.opening.split("\n\n")[0]
        parts.append(f"## {header.name}\n\n[{page}]({page}): {summary}")
        names = [
            found.name
            for found in header.declarations
            if found.kind in ("function", "inline")
        ]
        if names:
            parts.append("\n".join(f"* [`{name}`]({page}#{name})" for name in names))
    return "\n\n".join(parts) + "\n"


def places_of(headers: list[Header]) -> dict[str, str]:
    """Return the page and anchor of each declaration and header."""
    names = {
        found.anchor: f"{page_name(header.name)}#{found.anchor}"
        for header in headers
        for found in header.declarations
        if not found.is_forwarding
    }
    return {**names, **{header.name: page_name(header.name) for header in headers}}


def pages(folder: Path = HEADERS) -> dict[str, str]:
    """Return the text of each page, by file name."""
    headers = [parse(folder / name) for name in NAMES]
    places = places_of(headers)
    written = {page_name(one.name): Page(one, places).text() for one in headers}
    return {"index.md": index(headers), **written}


# ---- the command ---------------------------------------------------------------------


def differences(written: dict[str, str]) -> list[str]:
    """Return how the pages differ from those in docs/c-api."""
    found: list[str] = []
    for name, text in written.items():
        path = PAGES / name
        old = path.read_text(encoding="utf-8") if path.exists() else ""
        found += difflib.unified_diff(
            old.splitlines(), text.splitlines(), f"docs/c-api/{name}", "headers", n=1
        )
    present = {path.name for path in PAGES.glob("*.md")}
    found += [f"docs/c-api/{name}: of no header" for name in present - set(written)]
    return found


def main() -> int:
    """Write or check the pages; return the exit code."""
    summary = (__doc__ or "").splitlines()[0]
    parser = argparse.ArgumentParser(description=summary)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--write", action="store_true", help="write docs/c-api")
    action.add_argument(
        "--check", action="store_true", help="fail if docs/c-api is not up to date"
    )
    is_writing: bool = parser.parse_args().write
    written = pages()
    if is_writing:
        PAGES.mkdir(parents=True, exist_ok=True)
        for name, text in written.items():
            (PAGES / name).write_text(text, encoding="utf-8")
        return 0
    found = differences(written)
    if found:
        print(*found, "run: python tools/c_api.py --write", sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
