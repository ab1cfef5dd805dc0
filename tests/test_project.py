"""The project's own promises: lints, types, the README's commands, no stray text."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import fluxc

from fluxc.compiler.knobs import KNOBS

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ["compiler", "dsl", "runtime", "tests", "examples", "benchmarks"]
TEXT = {".py", ".c", ".h", ".md", ".lark", ".fir"}


def run(*command, **env):
    return subprocess.run(
        [*map(str, command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | env,
    )


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=" ".join)
def test_ruff_is_content(command):
    site = ("docs/conf.py", "docs/reference.py")
    result = run(sys.executable, "-m", "ruff", *command, *FOLDERS, *site)
    assert result.returncode == 0, result.stdout + result.stderr


def test_mypy_is_content(pytestconfig):
    cache = pytestconfig.cache.mkdir("mypy")
    result = run("bash", ".ci/types", "--cache-dir", cache, PYTHON=sys.executable)
    assert result.returncode == 0, result.stdout + result.stderr


def test_knobs_are_the_only_environment_and_the_help_lists_them(tmp_path):
    """One file reads variables; the whole environment is passed on to the C compiler alone."""
    for folder in ("compiler", "dsl", "runtime"):
        for file in (ROOT / folder).rglob("*.py"):
            reads = re.search(r"environ(\[|\.get\()|getenv", file.read_text())
            assert not reads or file.name == "knobs.py", file
    shown = fluxc("--help", cwd=tmp_path).stdout
    assert all(f"{k.name}: {k.meaning[:20]}" in shown for k in KNOBS.values())


def test_ci_runs_the_readme_s_test_command():
    readme = (ROOT / "README.md").read_text()
    command = re.search(r"^ +(pip install .*pytest)$", readme, re.MULTILINE)[1]
    script = (ROOT / ".ci" / "run").read_text().replace("--quiet ", "")
    assert command in script


def test_every_relative_link_of_the_documents_leads_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_no_text_names_a_place_of_one_machine():
    files = [p for f in [*FOLDERS, "docs"] for p in (ROOT / f).rglob("*") if p.suffix in TEXT]
    for file in [*files, *ROOT.glob("*.md"), *ROOT.glob("*.toml")]:
        found = re.search(r"/(home|root|work|Users)/\w+", file.read_text())
        assert not found, f"{file} names {found[0]}"
