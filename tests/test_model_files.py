"""What is wrong with a model file is said in one message with the user's line."""

import re

import pytest
from command_line import fluxc, fluxc_process

PRELUDE = """\
import fluxc as fx
from fluxc import losses, nn, optim

model = nn.Chain(nn.Dense(4, 3, fx.relu), nn.Dense(3, 2))

"""

# name: (text after the prelude, line of the error after it or None, words of the message)
BROKEN = {
    "a syntax error": ("def predict(x:\n", None, ["cannot read the model file"]),
    "an import that fails": (
        "import nowhere_to_be_found\n", 1, ["does not import", "nowhere_to_be_found"],
    ),
    "an exception": ("1 / 0\n", 1, ["does not import", "ZeroDivisionError"]),
    "no export": ("x = 1\n", None, ["exports nothing", "@fx.export"]),
    "one name twice": (
        2 * "@fx.export\ndef predict(x: fx.f32['n', 4]):\n    return model(x)\n\n",
        None,
        ["two exports are named", "predict"],
    ),
    "a Python if on a tensor": (
        "@fx.export\ndef predict(x: fx.f32['n', 4]):\n    if x.sum() > 0:\n        return x\n",
        3,
        ["fx.where"],
    ),
    "float() of a tensor": (
        "@fx.export\ndef predict(x: fx.f32['n', 4]):\n    return x * float(x.sum())\n",
        3,
        ["float"],
    ),
    "iterating over a symbolic axis": (
        "@fx.export\ndef predict(x: fx.f32['n', 4]):\n    return sum(row for row in x)\n", 3, [],
    ),
    "assigning to an element": (
        "@fx.export\ndef predict(x: fx.f32['n', 4]):\n    x[0] = 1\n    return x\n", 3, [],
    ),
    "shapes that do not broadcast": (
        "@fx.export\ndef predict(x: fx.f32['n', 4], y: fx.f32['n', 3]):\n    return x + y\n",
        3,
        ["[n, 4]", "[n, 3]"],
    ),
    "a layer of the wrong width": (
        "@fx.export\ndef predict(x: fx.f32['n', 5]):\n    return model(x)\n",
        3,
        ["layers.0", "4", "5"],
    ),
    "a missing annotation": (
        "@fx.export\ndef predict(x):\n    return model(x)\n", None, ["x", "fx.f32"],
    ),
    "a wrong annotation": (
        "@fx.export\ndef predict(x: float):\n    return model(x)\n", None, ["x", "fx.f32"],
    ),
    "a loss that is not a scalar": (
        "@fx.export(optimizer=optim.Adam())\ndef step(x: fx.f32['n', 4]):\n    return model(x)\n",
        None,
        ["scalar", "f32[n, 2]"],
    ),
    "a training step that reaches no parameter": (
        "@fx.export(optimizer=optim.Adam())\ndef step(x: fx.f32['n', 4]):\n    return x.sum()\n",
        None,
        ["parameter"],
    ),
    "a result that is no tensor": (
        "@fx.export\ndef predict(x: fx.f32['n', 4]):\n    return 'x'\n", None, ["predict"],
    ),
    "an integer where a float is needed": (
        "@fx.export\ndef predict(x: fx.i32['n', 4]):\n    return x @ model\n", 3, [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_model_file_gets_one_message(case, tmp_path):
    text, line, words = BROKEN[case]
    (tmp_path / "broken.py").write_text(PRELUDE + text)
    result = fluxc("ir", "broken.py", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    if line is not None:
        assert f"broken.py:{PRELUDE.count(chr(10)) + line}" in result.stderr


def test_a_missing_file_is_named(tmp_path):
    result = fluxc("compile", "nowhere.py", "-o", "out", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert "nowhere.py" in result.stderr
    assert not (tmp_path / "out").exists()


USAGE = {
    "no command": ["bogus"],
    "a missing output": ["compile", "m.py"],
    "an unknown stage": ["ir", "m.py", "--stage", "soup"],
    "an unknown option": ["compile", "m.py", "-o", "x", "--fast"],
    "something that cannot be emitted": ["compile", "m.py", "-o", "x", "--emit", "toast"],
    "negative threads": ["compile", "m.py", "-o", "x", "--threads", "-1"],
}


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage_exits_with_2(case, tmp_path):
    (tmp_path / "m.py").write_text(PRELUDE)
    result = fluxc(*USAGE[case], cwd=tmp_path)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr


def test_a_shell_sees_the_status_and_one_message_without_colour_codes(tmp_path):
    (tmp_path / "broken.py").write_text(PRELUDE)
    result = fluxc_process("ir", "broken.py", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert "exports nothing" in result.stderr
    assert not re.search(r"\x1b\[|Traceback", result.stderr)
