"""Runs the command line: as a shell does, or in this process, which is ten times as quick."""

import contextlib
import io
import subprocess
import sys
from dataclasses import dataclass
from unittest import mock

from fluxc.compiler import cli


@dataclass(frozen=True)
class Result:
    """What a command left behind; named as subprocess names it."""

    returncode: int
    stdout: str
    stderr: str


def fluxc_process(*arguments, cwd):
    """`fluxc ARGUMENTS` in a process of its own."""
    command = [sys.executable, "-m", "fluxc.compiler", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)


def fluxc(*arguments, cwd):
    """`fluxc ARGUMENTS` in this process.  An exception that a user would see goes to the test."""
    stdout, stderr, status = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(cwd),
        mock.patch.object(sys, "argv", ["fluxc", *map(str, arguments)]),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
    ):
        try:
            cli.main()
        except SystemExit as exit_:
            status = exit_.code or 0
    return Result(status, stdout.getvalue(), stderr.getvalue())
