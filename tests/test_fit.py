"""`memory=`: less scratch memory, the same numbers."""

import json

import numpy as np
import pytest
from command_line import fluxc

import fluxc as fx
from fluxc import nn, optim
from fluxc.compiler import driver
from fluxc.compiler.backends.llvm.target import native_target
from fluxc.compiler.errors import FluxcError
from fluxc.compiler.ir.dims import evaluate_size, parse_size
from fluxc.compiler.kernels.printer import print_program
from fluxc.export import ExportedFunction, trace_exports
from fluxc.limits import memory_limit

BATCH = 32


class Attention(fx.Module):
    def __init__(self, width, heads):
        self.heads = heads
        self.norm, self.qkv = nn.LayerNorm(width), nn.Dense(width, 3 * width)
        self.drop, self.out = nn.Dropout(0.2), nn.Dense(width, width)

    def __call__(self, x):
        b, t, d = x.shape
        parts = self.qkv(self.norm(x)).reshape(b, t, 3, self.heads, d // self.heads)
        q, k, v = (parts[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
        weights = self.drop(fx.softmax(q @ k.transpose(0, 1, 3, 2) / 4, axis=-1))
        return x + self.out((weights @ v).transpose(0, 2, 1, 3).reshape(b, t, d))


class Recurrent(fx.Module):
    """A cell along the time axis, which leaves a step out where it is told to."""

    def __init__(self, width):
        self.cell, self.head = nn.Dense(2 * width, width, fx.tanh), nn.Dense(width, width)

    def __call__(self, x):
        def step(h, now):
            new = fx.cond(
                now.mean() > 0,
                lambda: self.cell(fx.concatenate([h, now], axis=1)),
                lambda: fx.sin(h),
            )
            return new, new

        for _ in range(2):
            _, hidden = fx.scan(step, x[:, 0] * 0, x.transpose(1, 0, 2))
            x = self.head(hidden.transpose(1, 0, 2))
        return x


MODELS = {
    "mlp": (
        lambda: nn.Chain(
            *[nn.Chain(nn.Dense(64, 64, fx.tanh), nn.Dropout(0.1)) for _ in range(12)]
        ),
        fx.f32["batch", 64],
    ),
    "cnn": (
        lambda: nn.Chain(
            nn.Conv((3, 3), 3, 8, pad=1),
            *[nn.Chain(nn.Conv((3, 3), 8, 8, pad=1), nn.BatchNorm(8, fx.relu)) for _ in range(6)],
            nn.MaxPool((2, 2)),
        ),
        fx.f32["batch", 3, 12, 12],
    ),
    "attention": (
        lambda: nn.Chain(
            *[
                nn.Chain(Attention(16, 2), nn.Dense(16, 32, fx.gelu), nn.Dense(32, 16))
                for _ in range(2)
            ]
        ),
        fx.f32["batch", 12, 16],
    ),
    "recurrent": (lambda: Recurrent(16), fx.f32["batch", 10, 16]),
}
"""Models, and the type of what they take."""
PART = {"mlp": 0.6, "cnn": 0.9, "attention": 0.6, "recurrent": 0.9}
"""How much of the memory must be enough."""


def entry(name, model, **options):
    type = MODELS[name][1]

    def step(x: type):
        return (model(x) ** 2).mean()

    title = options.pop("title", name)
    return ExportedFunction(step, name=title, optimizer=optim.Descent(0.1), **options)


def arena(program, batch=BATCH):
    return evaluate_size(program.arena, {"batch": batch})


def planned(make, memory=None):
    """The plan of a training step."""

    def step(x: fx.f32[BATCH, 64]):
        return (model(x) ** 2).mean()

    model = make()
    export = ExportedFunction(step, name="step", optimizer=optim.Adam(1e-2), memory=memory)
    (program,) = driver.lower(trace_exports([export], {"model": model}), native_target())
    return program


def checkpointed(name, blocks, wrap):
    def step(x: fx.f32["batch", 8]):  # noqa: F821 (the name of a size)
        for block in blocks:
            x = x + wrap(block)(x)
        return (x * x).mean()

    return ExportedFunction(step, name=name, optimizer=optim.Descent(0.1))


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    """Every model's step, plain and within a part of the memory that this needs."""
    models = {name: make() for name, (make, _) in MODELS.items()}
    plain = [entry(name, model) for name, model in models.items()]
    before = driver.lower(trace_exports(plain, models), native_target())
    limits = {p.name: int(arena(p) * PART[p.name]) for p in before}
    tight = [
        entry(name, model, title=f"{name}_tight", memory={"limit": limits[name], "batch": BATCH})
        for name, model in models.items()
    ]
    folder = tmp_path_factory.mktemp("fit") / "model"
    blocks = [nn.Chain(nn.Dense(8, 64, fx.tanh), nn.Dense(64, 8)) for _ in range(4)]
    pair = [checkpointed("kept", blocks, lambda f: f)]
    pair += [checkpointed("held", blocks, fx.checkpoint)]
    spec = trace_exports([*plain, *tight, *pair], {**models, "blocks": nn.Chain(*blocks)})
    made = driver.compile_spec(spec, folder)
    return folder, {p.name: p for p in made.programs}, limits


@pytest.mark.parametrize("name", MODELS)
def test_a_step_within_a_limit_computes_the_same_numbers(artifact, name):
    """The same random ones too.  Only sums may differ, in the order of their summands."""
    folder, programs, limits = artifact
    package = driver.load_package(folder)
    free, tight = package.Model(seed=3), package.Model(seed=3)
    rng = np.random.default_rng(0)
    shape = [s if isinstance(s, int) else BATCH for s in programs[name].inputs[0].shape]
    for batch in (BATCH, 5):
        x = rng.normal(size=(batch, *shape[1:])).astype(np.float32)
        one, other = getattr(free, name)(x), getattr(tight, f"{name}_tight")(x)
        assert one.tobytes() == other.tobytes()
    for key, value in free.parameters.items():
        assert value.tobytes() == tight.parameters[key].tobytes(), key

    assert arena(programs[f"{name}_tight"]) <= limits[name] < arena(programs[name])
    assert programs[f"{name}_tight"].recomputed
    assert not programs[name].recomputed


def test_inspect_shows_the_memory_of_every_entry_and_what_is_computed_again(artifact):
    folder, programs, _ = artifact
    shown = fluxc("inspect", folder, cwd=folder).stdout.replace("\n", " ")

    assert "computed again" in shown
    assert "test_fit.py" in shown
    manifest = json.loads((folder / "manifest.json").read_text())
    for e in manifest["entries"]:
        assert e["memory"] == str(programs[e["name"]].arena)
        assert e["recomputed"] == list(programs[e["name"]].recomputed)


def test_inspect_shows_that_a_checkpoint_needs_less_memory(artifact):
    folder, programs, _ = artifact
    shown = json.loads(fluxc("inspect", folder, "--json", cwd=folder).stdout)
    memory = {e["name"]: parse_size(str(e["memory"])) for e in shown["entries"]}
    held, kept = (evaluate_size(memory[name], {"batch": BATCH}) for name in ("held", "kept"))

    assert held < 0.6 * kept
    assert kept == arena(programs["kept"])


def test_a_deep_network_trains_in_a_quarter_of_the_memory():
    deep = lambda: nn.Chain(*[nn.Dense(64, 64, fx.tanh) for _ in range(32)])
    free = planned(deep)
    tight = planned(deep, memory=free.arena // 4)

    assert tight.arena <= free.arena // 4


def test_the_choice_is_the_same_every_time():
    one, other = (planned(MODELS["mlp"][0], memory="250KiB") for _ in range(2))

    assert one.recomputed == other.recomputed
    assert print_program(one) == print_program(other)


def test_what_cannot_fit_says_by_how_much():
    with pytest.raises(FluxcError, match=r"step does not fit in 1 KiB of memory") as caught:
        planned(lambda: nn.Chain(nn.Dense(64, 64, fx.relu), nn.Dense(64, 64)), memory="1KiB")

    assert "bytes" in caught.value.got
    assert "more" in caught.value.got
    assert caught.value.expected == "1024 bytes"


def limited(type, memory):
    model = nn.Chain(nn.Dense(8, 8, fx.relu), nn.Dense(8, 8))

    def step(x: type):
        return model(x).mean()

    export = ExportedFunction(step, name="step", optimizer=optim.Descent(0.1), memory=memory)
    return driver.lower(trace_exports([export], {"model": model}), native_target())


def test_a_size_without_a_largest_value_fits_nowhere():
    with pytest.raises(FluxcError, match="no memory is enough for every batch") as caught:
        limited(fx.f32["batch", 8], "64MiB")

    assert '{"limit": "64MiB", "batch": 64}' in caught.value.hint
    limited(fx.f32[fx.dim("batch", max=64), 8], "64MiB")
    limited(fx.f32["batch", 8], {"limit": "64MiB", "batch": 64})


@pytest.mark.parametrize(
    ("memory", "message"),
    [
        ("64 MibiByte", "no number of bytes"),
        (-1, "no number of bytes"),
        (1.5, "no number of bytes"),
        ({"batch": 64}, "lacks its limit"),
        ({"limit": 64, "batch": "x"}, "gives batch no size"),
        ({"limit": "1MiB", "time": 64}, "a size that the entry does not have"),
        ({"limit": "1MiB", "batch": 6}, "a value that it cannot have"),
    ],
)
def test_a_wrong_limit_is_an_error(memory, message):
    with pytest.raises(FluxcError, match=message):
        limited(fx.f32[fx.dim("batch", min=4, multiple_of=4), 8], memory)


def test_bytes_are_written_as_people_write_them():
    fail = lambda summary, **_: pytest.fail(summary)
    written = {"64MiB": 2**26, "1.5 KiB": 1536, "2GB": 2 * 10**9, "100": 100, "7B": 7}
    assert {text: memory_limit(text, fail).bytes for text in written} == written
