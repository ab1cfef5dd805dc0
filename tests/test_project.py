"""The project's own promises: lints, types, the README's commands, no stray text."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ["compiler", "dsl", "runtime", "tests", "examples", "benchmarks"]


def run(*command):
    return subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("command", [("ruff", "check"), ("ruff", "format", "--check")], ids=" ".join)
def test_ruff_is_content(command):
    result = run(*command, *FOLDERS)
    assert result.returncode == 0, result.stdout + result.stderr


def test_mypy_is_content():
    result = run("mypy")
    assert result.returncode == 0, result.stdout + result.stderr


def test_ci_runs_the_readme_s_test_command():
    command = re.search(r"^ +(pip install .*pytest)$", (ROOT / "README.md").read_text(), re.MULTILINE)[1]
    script = (ROOT / ".ci" / "run").read_text().replace("--quiet ", "")
    assert command in script


def test_every_relative_link_of_the_documents_leads_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
