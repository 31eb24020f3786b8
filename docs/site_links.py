"""Links of the site: make them mean what they mean where Sphinx is not at work.

Markdown links to folders and to anchors in HTML, as the pages have them; and names in
backticks, as the docstrings have them. Its one rule: a name that is nowhere to be found
stays unresolved, so the build reports it.
"""

from __future__ import annotations

import importlib
import posixpath
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform
from sphinx.util.nodes import make_refnode

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

ROOT = Path(__file__).resolve().parent.parent
ANCHOR = re.compile(r'<a id="([\w-]+)">')
SHORT_SECTION = re.compile(r"(Shape|Units|Order|Threads|Fork|Source):\s+(\S.*)")
# Pages that another page lists, so they stand in no table of contents.
BESIDE = re.compile(r"(examples|tests)/\w.*/README")


class RepositoryLinks(SphinxTransform):
    """Take the anchors that a page has as HTML, and its links to folders."""

    default_priority = 870  # before MyST resolves the links within a page (879)

    def apply(self, **_options: object) -> None:
        """Do so for one page."""
        metadata = self.env.metadata[self.env.docname]
        slugs = metadata.setdefault("myst_slugs", {})
        for anchor in self.document.findall(nodes.raw):
            name = ANCHOR.fullmatch(anchor.astext())
            if name:
                slugs[name[1]] = (anchor.line, name[1], name[1])
        for link in self.document.findall(pending_xref):
            if link["reftype"] == "myst" and link["refdomain"] is None:
                self.lead_to_readme(link)
        if BESIDE.fullmatch(self.env.docname):
            metadata["orphan"] = "listed by another page"

    def lead_to_readme(self, link: pending_xref) -> None:
        """Let a link to a folder lead to the README in it, if it has one."""
        folder = posixpath.dirname(self.env.docname)
        path = posixpath.normpath(posixpath.join(folder, link["reftarget"]))
        if (ROOT / path / "README.md").is_file():
            link["refdomain"] = "doc"
            link["reftarget"] = posixpath.join(path, "README")
            link["reftargetid"] = None


def find_name(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Element
) -> nodes.Element | None:
    """Resolve a name in a docstring: of this page, of C, or of the standard library."""
    name = node["reftarget"]
    if node["refdomain"] != "py":
        return None
    place = place_in_python(env, node["refdoc"], name) or place_in_c(env, name)
    if place:
        return make_refnode(app.builder, node["refdoc"], *place, content)
    return content if is_importable(name) else None


def place_in_python(
    env: BuildEnvironment, page: str, name: str
) -> tuple[str, str] | None:
    """Find a method or class that is named without its class or module.

    One of this page is meant first; if pages have several, it is the first of them.
    """
    objects = env.get_domain("py").objects  # type: ignore[attr-defined] # its own
    found = [one for full, one in objects.items() if full.endswith("." + name)]
    for one in sorted(found, key=lambda one: one.docname != page):
        return one.docname, one.node_id
    return None


def place_in_c(env: BuildEnvironment, name: str) -> tuple[str, str] | None:
    """Find a name of the headers in the pages that are made of them."""
    for page, metadata in env.metadata.items():
        if page.startswith("docs/c-api/fdmux"):
            slugs = metadata.get("myst_slugs", {})
            if name in slugs:
                return page, slugs[name][1]
    return None


def is_importable(name: str) -> bool:
    """Whether a name is one of the standard library: `ssl.SSLContext.wrap_bio`."""
    module, _, rest = name.partition(".")
    if module not in sys.stdlib_module_names:
        return False
    found: object = importlib.import_module(module)
    for part in filter(None, rest.split(".")):
        found = getattr(found, part, None)
    return found is not None


def prepare_docstring(
    _app: Sphinx, what: str, _name: str, _of: object, _options: object, lines: list[str]
) -> None:
    """Write a docstring as napoleon reads it.

    Our short sections begin on the line of their name: `Threads: Any.` And what stands
    before a colon in the summary of a property is not its type.
    """
    is_short = False
    written: list[str] = ["\\ "] if what in {"property", "attribute", "data"} else []
    for line in lines:
        section = SHORT_SECTION.match(line)
        if section:
            written += ["", f"{section[1]}:", f"    {section[2]}"]
        elif is_short and line.startswith(" "):
            written.append(f"    {line.strip()}")
            continue
        else:
            written.append(line)
        is_short = section is not None
    lines[:] = written


def write_front_page(app: Sphinx, error: Exception | None) -> None:
    """Lead from the folder of the site to its first page."""
    if error is None and app.builder.name == "html":
        first = f"{app.config.root_doc}.html"
        refresh = f'<meta http-equiv="refresh" content="0; url={first}">'
        link = f'<a href="{first}">{app.config.project}</a>'
        page = f"<!doctype html><title>{app.config.project}</title>{refresh}{link}\n"
        (Path(app.outdir) / "index.html").write_text(page, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    """Add what this file defines."""
    app.add_transform(RepositoryLinks)
    app.connect("missing-reference", find_name)
    app.connect("autodoc-process-docstring", prepare_docstring, priority=400)
    app.connect("build-finished", write_front_page)
    return {"parallel_read_safe": True}
