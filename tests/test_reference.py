"""The site builds without warnings, and its reference has every public name with a docstring."""

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fluxc as fx

DOCS = Path(__file__).resolve().parent.parent / "docs"
sys.path.insert(0, str(DOCS))

import reference  # noqa: E402  (docs/reference.py)

COMPARISONS = ("coming-from-flux", "coming-from-pytorch")


def test_the_site_builds_without_warnings(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    built = subprocess.run(
        [*command, "-d", tmp_path / "trees", DOCS, tmp_path / "site"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert "cross-correlation" in (tmp_path / "site" / "reference" / "nn.html").read_text()


@pytest.mark.parametrize("page", reference.PAGES)
def test_every_public_name_has_a_docstring(page):
    module = importlib.import_module(reference.PAGES[page][1])
    for name in reference.public_names(page):
        value = getattr(module, name)
        if inspect.isroutine(value) or inspect.isclass(value):
            assert (inspect.getdoc(value) or "").strip(), f"{module.__name__}.{name}"


def test_every_module_of_the_language_has_a_page():
    modules = {n for n in fx.__all__ if inspect.ismodule(getattr(fx, n))}
    assert modules == set(reference.PAGES) - {"fluxc", "ops"}


@pytest.mark.parametrize("page", COMPARISONS)
def test_the_names_that_a_comparison_gives_exist(page):
    modules = {"fx": fx} | {n: getattr(fx, n) for n in reference.PAGES if hasattr(fx, n)}
    code = re.findall(r"`([^`]+)`", (DOCS / f"{page}.md").read_text())
    roots = "|".join(modules)
    found = [m for c in code for m in re.findall(rf"(?<![\w.])({roots})((?:\.\w+)+)", c)]
    assert len(found) > 100
    for root, path in found:
        value = modules[root]
        for part in path[1:].split("."):
            assert hasattr(value, part), f"{root}{path}"
            value = getattr(value, part)
