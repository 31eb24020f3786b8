"""The site: Sphinx on the pages as they stand in the repository.

    python -m sphinx -n -W --keep-going -c docs . build/site

The source folder is the root of the repository, so that a relative link means the same
here and in any other view of the files. Its one rule: a page is written once, and reads
well without Sphinx too.
"""

from __future__ import annotations

import sys
from pathlib import Path

import fdmux

sys.path.insert(0, str(Path(__file__).parent))

project = "fdmux"
author = "The fdmux authors"
project_copyright = "2026, the fdmux authors"
version = release = fdmux.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "site_links",
]
root_doc = "docs/index"
source_suffix = {".md": "markdown"}
include_patterns = [
    "*.md",
    "docs/**.md",
    "examples/**/README.md",
    "examples/README.md",
    "benchmarks/README.md",
    "tests/**/README.md",
    "tests/README.md",
]
exclude_patterns = ["build", "dist", ".*", "**/.venv", "**/build"]

# ---- Markdown ------------------------------------------------------------------------

myst_heading_anchors = 4
myst_enable_extensions = ["attrs_inline"]
# Fences of these languages are shown as they are.
suppress_warnings = ["myst.header"]  # the generated pages of C go from # to ###

# ---- Python --------------------------------------------------------------------------

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "inherited-members": False}
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
napoleon_custom_sections = [
    (name, "notes_style")
    for name in ("Shape", "Units", "Order", "Threads", "Fork", "Source")
]
default_role = "py:obj"
python_use_unqualified_type_names = True
# Types in signatures that have no entry, since no program names them: `Seconds` is any
# real number, `Buffer` and `BytesLike` are what has bytes. And words that are no names.
nitpick_ignore_regex = [
    ("py:class", r"Seconds|Buffer|BytesLike|ReplyRule|Waitable|Address|Pair|FileLike"),
    ("py:class", r"Callback|ErrorHook|Done|Handle|TimerHandle|Cipher|Certificate"),
    ("py:class", r"Result|Parameters(\.k?w?args)?|(.*\.)?Data(_co)?|ProtocolT"),
    ("py:class", r"SSLContext|SSLSession|SelectorKey|FileDescriptorLike"),
    (
        "py:class",
        r"fdmux\..*\.(HasLoop|Observers|SocketView|StreamTransport)|Server|BaseSelector",
    ),
    (
        "py:obj",
        r"ADAPTER_CASES|await|__fdmux_loop__|framing|TIME_LIMIT|StreamSelector|EpollSelector",
    ),
]

# ---- the look ------------------------------------------------------------------------

html_theme = "furo"
html_title = f"fdmux {release}"
html_copy_source = False
html_show_sphinx = False
pygments_style = "default"
pygments_dark_style = "github-dark"
copybutton_exclude = ".linenos, .gp, .go"
