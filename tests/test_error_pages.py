"""Every kind of error has a page, whose examples give the messages that it shows.

A page's blocks are run in order.  A model or graph, or commands, that are followed by a block of
text fail with that text, in which `...` stands for anything; all others succeed.
"""

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fluxc.compiler import driver, errors
from fluxc.compiler.backends.llvm.target import native_target

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "errors"
PAGES = sorted(p for p in FOLDER.glob("*.md") if p.name != "README.md")
FILES = {"python": "model.py", "fir": "model.fir"}
SHELL = 'fluxc() { "$PYTHON" -m fluxc.compiler "$@"; }\nset -e\n'


def examples(page):
    """(language, code, the message or None) of every block in order."""
    blocks = re.findall(r"```(\w+)\n(.*?)\n```", page.read_text(), re.DOTALL)
    for i, (language, code) in enumerate(blocks):
        if language != "text":
            follows = blocks[i + 1] if i + 1 < len(blocks) else ("", "")
            yield language, code, follows[1] if follows[0] == "text" else None


def message_of(language, code):
    """What compiling a model, or commands, say when they fail; None if they do not."""
    if language == "sh":
        environment = os.environ | {"PYTHON": sys.executable}
        command = ["bash", "-c", SHELL + code]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode in (0, 1), done.stderr
        return done.stderr.strip() if done.returncode else None
    Path(FILES[language]).write_text(code + "\n")
    try:
        driver.lower(driver.load_model_file(FILES[language]), native_target())
    except errors.FluxcError as error:
        return str(error)
    return None


@pytest.mark.cc
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_the_examples_of_a_page_give_its_messages(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = list(examples(page))
    assert any(message for *_, message in found)
    assert any(message is None for *_, message in found)
    for language, code, message in found:
        got = message_of(language, code)
        if message is None:
            assert got is None, f"{code}\n{got}"
        else:
            wanted = re.escape(message).replace(r"\.\.\.", ".*?")
            assert re.fullmatch(wanted, got or "", re.DOTALL), f"{code}\n{got}"


def test_every_kind_of_error_has_a_page():
    kinds = [
        n for n, c in inspect.getmembers(errors, inspect.isclass)
        if issubclass(c, errors.FluxcError) and c is not errors.FluxcError
    ]  # fmt: skip
    titles = {p.read_text().splitlines()[0].removeprefix("# ") for p in PAGES}
    assert titles == {*kinds, "ArtifactError"}
    index = (FOLDER / "README.md").read_text()
    assert all(f"({p.name})" in index for p in PAGES)
