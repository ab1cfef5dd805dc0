"""The site: `python -m sphinx -W docs build/site`.  Reference pages are written from docstrings."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import reference  # noqa: E402  (beside this file)
from pygments.lexers.special import TextLexer  # noqa: E402

import fluxc  # noqa: E402

project, author, release = "fluxc", "the fluxc authors", fluxc.__version__
extensions = ["sphinx.ext.autodoc", "myst_parser"]
exclude_patterns = []
html_theme = "furo"
html_title = f"fluxc {release}"
html_copy_source = False
myst_heading_anchors = 3
autodoc_typehints = "none"
autodoc_preserve_defaults = True
add_module_names = False
suppress_warnings = ["myst.xref_missing"]  # links to files of the repository that are no pages


def setup(app):
    """Write the reference pages, then lay out each docstring."""
    app.add_lexer("fir", TextLexer)
    reference.write_pages(HERE / "reference")
    app.connect("autodoc-process-docstring", reference.lay_out)
