"""Reference pages from docstrings: which names stand on which page, how a docstring is laid out.

fluxc's docstrings are plain text: a sentence, then formulas, and aligned rows that begin with
Shapes, Errors, the names of arguments.  Prose becomes prose here, everything else stays as it is.
"""

import importlib
import inspect
import re
from pathlib import Path

# page: its title, the module whose public names it documents, how a user writes the module.
PAGES = {
    "fluxc": ("Declaring, compiling, transforming", "fluxc", "fx"),
    "ops": ("Functions on tensors", "fluxc.ops", "fx"),
    "random": ("Random numbers", "fluxc.ops.random", "fx.random"),
    "linalg": ("Linear algebra", "fluxc.linalg", "fx.linalg"),
    "nn": ("Layers", "fluxc.nn", "nn"),
    "losses": ("Losses", "fluxc.losses", "losses"),
    "optim": ("Optimisers", "fluxc.optim", "optim"),
    "schedules": ("Schedules", "fluxc.schedules", "schedules"),
    "init": ("Initialisers", "fluxc.init", "init"),
    "data": ("Data", "fluxc.data", "data"),
    "train": ("Training", "fluxc.train", "train"),
    "convert": ("Weights from elsewhere", "fluxc.convert", "convert"),
}


def public_names(page):
    """What a page documents: the module's public names that are no modules and no other page's."""
    module = importlib.import_module(PAGES[page][1])
    ops = importlib.import_module("fluxc.ops")
    names = [n for n in module.__all__ if not inspect.ismodule(getattr(module, n))]
    if page == "fluxc":
        names = [n for n in names if n not in ops.__all__]
    return sorted(names, key=str.lower)


def write_pages(folder):
    """One page for each module; files that would not change are left alone."""
    folder.mkdir(exist_ok=True)
    for page in PAGES:
        text = "\n".join(_page(page)) + "\n"
        file = Path(folder) / f"{page}.rst"
        if not file.exists() or file.read_text() != text:
            file.write_text(text)


def _page(page):
    title, name, written = PAGES[page]
    module = importlib.import_module(name)
    yield from (title, "=" * len(title), "")
    if page != "fluxc":
        yield from (*_laid_out((module.__doc__ or "").splitlines()), "")
    for own in public_names(page):
        value = getattr(module, own)
        yield from (f"{written}.{own}", "-" * len(f"{written}.{own}"), "")
        yield from _entry(name, own, value)


def _entry(module, name, value):
    if inspect.isclass(value) or inspect.isroutine(value):
        kind = "class" if inspect.isclass(value) else "function"
        yield from (f".. auto{kind}:: {module}.{name}", "   :no-index:", "")
    elif doc := inspect.getdoc(value):
        yield from (*_laid_out(doc.splitlines()), "")
    else:
        yield from (f"``{value!r}``", "")


def lay_out(_app, _what, _name, _obj, _options, lines):
    """autodoc's hook: the docstring as reStructuredText."""
    lines[:] = _laid_out(lines)


def _laid_out(lines):
    """Paragraphs of prose as they are, with nothing that reads as markup; the others literally."""
    text = inspect.cleandoc("\n".join(lines))
    for paragraph in re.split(r"\n\s*\n", text):
        rows = paragraph.splitlines()
        if _is_prose(rows):
            yield from (_escaped(row) for row in rows)
        else:
            yield from ("::", "", *(f"    {row}" for row in rows))
        yield ""


def _is_prose(rows):
    """Neither indented nor aligned: no gap of two spaces but after the end of a sentence."""
    return not any(row.startswith(" ") or re.search(r"[^.:!?)\"'`]  +\S", row) for row in rows)


def _escaped(row):
    parts = re.split(r"(`[^`]+`)", row)
    return "".join(
        f"`{part}`" if part.startswith("`") else re.sub(r"([*_|\\<>])", r"\\\1", part)
        for part in parts
    )
