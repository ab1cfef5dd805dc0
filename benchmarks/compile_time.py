"""How long compiling takes as the graph grows: one row for each model and length.

    python benchmarks/compile_time.py

Seconds are the processor's, from tracing to the finished artifact.  `run.py` writes the table into
docs/benchmarks.md.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import fluxc as fx
from fluxc import losses, nn, optim
from fluxc.compiler import driver
from fluxc.compiler.kernels.printer import print_kernel
from fluxc.compiler.kernels.program import all_launches
from fluxc.export import ExportedFunction, trace_exports

# ruff: noqa: F821 (names of sizes)

WIDTH = 64


def chain(x, length):
    """Operations that do not become one kernel; few of the kernels are equal."""
    for i in range(length):
        match i % 11:
            case 0 | 4 | 7:
                x = x * (1 + i / 1000)
            case 1:
                x = fx.tanh(x)
            case 2:
                x = x[:, ::-1]
            case 3 | 8:
                x = x + i / 100
            case 5:
                x = fx.maximum(x, -1.0)
            case 6:
                x = x.cumsum(axis=1)
            case 9:
                x = x - x.mean(axis=1, keepdims=True)
            case 10:
                x = x.T if i % 2 else x / 2
    return x


def chain_entry(length):
    def run(x: fx.f32[WIDTH, WIDTH]):
        return chain(x, length)

    return [ExportedFunction(run, name="run")], {}


class Scale(fx.Module):
    def __init__(self, width):
        self.scale = fx.Param((width,), init=1.0)

    def __call__(self, x):
        return x * self.scale


def chain_step(length):
    scale = Scale(WIDTH)

    def step(x: fx.f32[WIDTH, WIDTH]):
        return chain(scale(x), length).mean()

    return [ExportedFunction(step, name="step", optimizer=optim.Descent(1e-3))], {"scale": scale}


def mlp(length):
    return nn.Chain(*[nn.Dense(WIDTH, WIDTH, fx.relu) for _ in range(length)])


def mlp_entry(length):
    model = mlp(length)

    def predict(x: fx.f32["batch", WIDTH]):
        return model(x)

    return [ExportedFunction(predict, name="predict")], {"model": model}


def mlp_step(length):
    model = mlp(length)

    def step(x: fx.f32["batch", WIDTH], y: fx.f32["batch", WIDTH]):
        return losses.mse(model(x), y)

    return [ExportedFunction(step, name="step", optimizer=optim.Adam(1e-3))], {"model": model}


class Block(fx.Module):
    """Attention over the time axis, then two products, each after a normalisation."""

    def __init__(self, width, heads):
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Dense(width, 3 * width), nn.Dense(width, width)
        self.up, self.down = nn.Dense(width, 4 * width, fx.gelu), nn.Dense(4 * width, width)

    def __call__(self, x):
        b, t, d = x.shape
        parts = self.qkv(self.first(x)).reshape(b, t, 3, self.heads, d // self.heads)
        q, k, v = (parts[:, :, i].transpose(0, 2, 1, 3) for i in range(3))
        scores = q @ k.transpose(0, 1, 3, 2) * (d // self.heads) ** -0.5
        mixed = (fx.softmax(scores, axis=-1) @ v).transpose(0, 2, 1, 3).reshape(b, t, d)
        x = x + self.out(mixed)
        return x + self.down(self.up(self.second(x)))


def blocks_entry(length):
    model = nn.Chain(*[Block(WIDTH, 4) for _ in range(length)])

    def predict(x: fx.f32["batch", 32, WIDTH]):
        return model(x)

    return [ExportedFunction(predict, name="predict")], {"model": model}


def blocks_step(length):
    model = nn.Chain(*[Block(WIDTH, 4) for _ in range(length)])

    def step(x: fx.f32["batch", 32, WIDTH], y: fx.f32["batch", 32, WIDTH]):
        return losses.mse(model(x), y)

    return [ExportedFunction(step, name="step", optimizer=optim.Adam(1e-3))], {"model": model}


MODELS = {
    "chain of operations": (chain_entry, 1000, 2000),
    "chain of operations in a training step": (chain_step, 1000, 2000),
    "MLP, layers": (mlp_entry, 50, 100),
    "MLP in a training step, layers": (mlp_step, 50, 100),
    "transformer, blocks": (blocks_entry, 12, 24),
    "transformer in a training step, blocks": (blocks_step, 12, 24),
}
"""What makes the model, and its two lengths."""


def measure(make, length):
    """Processor seconds of one compilation, and how many kernels are emitted and launched."""
    begun = time.process_time()
    spec = trace_exports(*make(length))
    with tempfile.TemporaryDirectory() as folder:
        (program,) = driver.compile_spec(spec, Path(folder) / "model").programs
    seconds = time.process_time() - begun
    launches = [launch.scheduled for launch in all_launches(program.run)]
    texts = {print_kernel(replace(s.kernel, name="kernel"), s.schedule) for s in launches}
    return f"{seconds:.2f} s", len(texts), len(launches)


def main():
    measure(mlp_entry, 1)  # what is made once in a process
    head = ["model", "length", "compile", "kernels", "launches"]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name, (make, *lengths) in MODELS.items():
        rows += [[name, length, *measure(make, length)] for length in lengths]
    print("\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows))


if __name__ == "__main__":
    main()
