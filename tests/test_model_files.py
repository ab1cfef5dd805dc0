"""What is wrong with a model file is said in one message with the user's line."""

import re

import pytest
from command_line import fluxc, fluxc_process

PRELUDE = """\
import fluxc as fx
from fluxc import losses, nn, optim

model = nn.Chain(nn.Dense(4, 3, fx.relu), nn.Dense(3, 2))

"""

PREDICT = "@fx.export\ndef predict(x: fx.f32['n', 4]):\n"

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
    "a misspelt keyword of a layer": (
        "layer = nn.Dense(4, 3, activaton=fx.relu)\n",
        1,
        ["activaton", "did you mean activation?"],
    ),
    "a keyword of PyTorch's": (
        PREDICT + "    return fx.softmax(x, dim=1)\n",
        3,
        ["did you mean axis?"],
    ),
    "a layer of PyTorch's": (
        "layer = nn.Linear(4, 3)\n",
        1,
        ["here it is Dense"],
    ),
    "an activation of PyTorch's": (
        "layer = nn.Chain(model, nn.ReLU())\n", 1, ["it is a function: fx.relu"],
    ),
    "a loss of PyTorch's": (
        "loss = losses.CrossEntropyLoss()\n", 1, ["here it is logitcrossentropy"],
    ),
    "a dtype of PyTorch's": (
        "@fx.export\ndef predict(x: fx.float32['n', 4]):\n    return x\n", 2, ["here it is f32"],
    ),
    "sizes by PyTorch's names": (
        "layer = nn.Dense(in_features=4, out_features=3)\n", 1, ["nn.Dense(3, 4)"],
    ),
    "an option of PyTorch's that is a layer here": (
        "layer = nn.LSTM(4, 3, num_layers=2)\n", 1, ["nn.Stacked("],
    ),
    "an option of a base class's constructor": (
        "layer = nn.Conv((3, 3), 4, 3, padding=1)\n", 1, ["did you mean pad?"],
    ),
    "a name where a function is meant": (
        "layer = nn.Dense(4, 3, 'relu')\n" + PREDICT + "    return layer(x)\n",
        4,
        ["a function instead of its name"],
    ),
    "a kernel of another rank": (
        "layer = nn.MaxPool(2)\n@fx.export\ndef f(x: fx.f32['n', 3, 8, 8]):\n    return layer(x)\n",
        4,
        ["one for each spatial axis: (3, 3)"],
    ),
    "an image without a batch": (
        "layer = nn.MaxPool((2, 2))\n@fx.export\ndef f(x: fx.f32[3, 8, 8]):\n    return layer(x)\n",
        4,
        ["x[None] is a batch of one"],
    ),
    "a layer behind one that returns several tensors": (
        ("layer = nn.Chain(nn.MultiHeadAttention(8, 2), nn.Dense(8, 2))\n@fx.export\n"
        "def f(x: fx.f32['n', 5, 8]):\n    return layer(x)\n"),
        4,
        ["given 2 tensors", "f32[n, 2, 5, 5]", "xs[0]"],
    ),
    "positions that a table may not have": (
        ("layer = nn.PositionEmbedding(30, 8)\n@fx.export\n"
        "def f(x: fx.f32['n', 't', 8]):\n    return layer(x)\n"),
        4,
        ["30 >= t", "max="],
    ),
    "a schedule as an optimiser": (
        ("from fluxc import schedules\n@fx.export(optimizer=schedules.Exp(0.1, 0.9))\n"
        "def step(x: fx.f32['n', 4]):\n    return model(x).sum()\n"),
        None,
        ["optim.Adam(schedules.Exp("],
    ),
    "an optimiser for what is not reached": (
        ("@fx.export(optimizer=optim.Adam(), wrt=nn.Dense(2, 2))\n"
        "def step(x: fx.f32['n', 4]):\n    return model(x).sum()\n"),
        None,
        ["of those that wrt= names"],
    ),
    "a method of PyTorch's": (
        PREDICT + "    return x.view(-1)\n",
        3,
        ["here it is reshape"],
    ),
    "a function as a method": (
        PREDICT + "    return x.relu()\n",
        3,
        ["fx.relu(x)"],
    ),
    "a misspelt name": (
        PREDICT + "    return modle(x)\n",
        3,
        ["modle", "did you mean model?"],
    ),
    "a misspelt function": (
        PREDICT + "    return fx.softmaxx(x)\n",
        3,
        ["did you mean softmax?"],
    ),
    "a NumPy function on a tensor": (
        "import numpy as np\n" + PREDICT + "    return np.exp(x)\n",
        4,
        ["fx.exp(x)"],
    ),
    "a NumPy reduction of a tensor": (
        "import numpy as np\n" + PREDICT + "    return np.sum(x)\n",
        4,
        ["fx.sum"],
    ),
    "a tensor put into a NumPy array": (
        "import numpy as np\n" + PREDICT + "    a = np.zeros((2, 4))\n    a[0] = x[0]\n",
        5,
        ["functions of fx instead of NumPy's"],
    ),
    "an entry that returns nothing": (
        PREDICT + "    model(x)\n",
        None,
        ["returns a NoneType", "return what the entry computes"],
    ),
    "an order of unknown sizes": (
        PREDICT + "    if x.shape[0] > 8:\n        return x\n    return -x\n",
        3,
        ["whether n > 8", "fx.where"],
    ),
    "a size as a divisor of a number": (
        PREDICT + "    return x * (1 / x.shape[0])\n",
        3,
        ["fx.array(x.shape[0])"],
    ),
    "range over an unknown size": (
        PREDICT + "    for i in range(x.shape[0]):\n        x = x + i\n    return x\n",
        3,
        ["known only when the program runs"],
    ),
    "formatting a tensor": (
        PREDICT + "    return x + len(f'{x.sum():.3f}')\n",
        3,
        ["has no value while it is traced"],
    ),
    "an assertion of the user's": (
        PREDICT + "    assert x.shape[1] == 5, 'five'\n    return x\n",
        3,
        ["AssertionError: five"],
    ),
    "an entry that calls itself": (
        PREDICT + "    return predict(x)\n",
        3,
        ["calls itself"],
    ),
    "a tensor of another entry": (
        ("seen = []\n\n@fx.export\ndef first(x: fx.f32['n', 4]):\n"
        "    seen.append(x * 2)\n    return x\n\n@fx.export\n"
        "def second(x: fx.f32['n', 4]):\n    return x + seen[0]\n"),
        10,
        ["export second", "another entry", "fx.State"],
    ),
    "a parameter that is overwritten": (
        PREDICT + "    model.layers[0].weight = model.layers[0].weight * 2\n    return model(x)\n",
        3,
        ["Dense.weight", "State"],
    ),
    "a layer made inside an entry": (
        PREDICT + "    return nn.Dense(4, 2)(x)\n",
        1,
        ["Param(f32[2, 4])", "top of the file"],
    ),
    "an exception inside a layer": (
        "class L(fx.Module):\n    def __call__(self, x):\n"
        "        return x + self.missing\n\nnet = nn.Chain(nn.Dense(4, 4), L())\n\n"
        + PREDICT
        + "    return net(x)\n",
        3,
        ["in net.layers.1", "'missing'"],
    ),
    "a module without __call__": (
        "class L(fx.Module):\n    def forward(self, x):\n        return x\n\n"
        + PREDICT
        + "    return L()(x)\n",
        7,
        ["__call__"],
    ),
    "an export of a module": (
        "predict = fx.export(model)\n",
        1,
        ["got:      a Chain", "return model(x)"],
    ),
    "an export of a class": (
        "@fx.export\nclass L(fx.Module):\n    pass\n",
        1,
        ["takes a function"],
    ),
    "an optimizer by position": (
        ("@fx.export(optim.Adam(1e-3))\ndef step(x: fx.f32['n', 4]):\n"
        "    return model(x).sum()\n"),
        1,
        ["@fx.export(optimizer=Adam("],
    ),
    "a class as optimizer": (
        ("@fx.export(optimizer=optim.Adam)\ndef step(x: fx.f32['n', 4]):\n"
        "    return model(x).sum()\n"),
        1,
        ["optim.Adam(1e-3)"],
    ),
    "decorators in the wrong order": (
        "@fx.jit\n" + PREDICT + "    return x\n",
        1,
        ["predict is exported, but no variable", "above every other decorator"],
    ),
    "an export under __main__": (
        ("if __name__ == '__main__':\n    @fx.export\n"
        "    def predict(x: fx.f32['n', 4]):\n        return x\n"),
        None,
        ["exports nothing", "__name__"],
    ),
    "a relative import": (
        "from .other import x\n",
        1,
        ["imported by their names"],
    ),
    "a dimension that is none": (
        "@fx.export\ndef predict(x: fx.f32[None, 4]):\n    return x\n",
        2,
        ["None is not a dimension"],
    ),
    "labels that are floats": (
        ("@fx.export(optimizer=optim.Adam())\n"
        "def step(x: fx.f32['n', 4], y: fx.f32['n']):\n"
        "    return losses.logitcrossentropy(model(x), y)\n"),
        3,
        ["labels must be integers", "i32[n]"],
    ),
    "an axis that is not there": (
        PREDICT + "    return fx.softmax(x, axis=2)\n",
        3,
        ["axis 2", "-2 .. 1"],
    ),
    "a bool mask as an index": (
        PREDICT + "    return x[x > 0]\n",
        3,
        ["fx.where"],
    ),
    "a state assigned in test mode": (
        "s = fx.State(4)\n" + PREDICT + "    s.assign(x.sum(0))\n    return x\n",
        4,
        ["fx.training()"],
    ),
    "a layer called outside of an entry": (
        "import numpy as np\ny = model(np.zeros((2, 4), np.float32))\n",
        2,
        ["fx.jit"],
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
