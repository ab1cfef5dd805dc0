"""Training curves of examples beside the same models in PyTorch, from the same initial weights.

`python tests/golden/curves.py` writes curves.npz beside this file, and docs/training-curves.png; it
needs PyTorch.  The test needs the file alone.  A case trains an example's own `train_step` for 50
steps; its twin is the model written out in PyTorch over a dict of the example's parameters.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import fluxc as fx

FILE = Path(__file__).with_suffix(".npz")
ROOT = FILE.parent.parent.parent
STEPS = 50


def example(name):
    """An example's file as a module."""
    path = ROOT / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass(frozen=True)
class Run:
    """An example's step, compiled, and what it is fed: 50 batches."""

    module: ModuleType
    model: Any
    batches: list

    def losses(self):
        return np.array([float(self.model.train_step(*batch)) for batch in self.batches])


def run(name):
    """A case ready to train, its model with the first weights."""
    module = example(name)
    package = fx.compile(vars(module), entries=("train_step",))
    rng = np.random.default_rng(7)
    return Run(module, package.Model(seed=3), [CASES[name][0](module, rng) for _ in range(STEPS)])


# Batches.


def _xor_batch(module, rng):
    return module.draw(rng, 64)


def _gpt_batch(module, rng):
    text, length = _TEXT, module.LENGTH
    starts = rng.integers(0, len(text) - length, 8)
    return (np.stack([text[i : i + length + 1] for i in starts]),)


def _lstm_batch(module, rng):
    starts = rng.integers(0, len(_TEXT) - module.LENGTH, 8)
    rows = [_TEXT[i : i + module.LENGTH + 1] for i in starts]
    return (np.stack(rows).astype(np.uint8),)


# Letters of a text that no version of Python changes.
_TEXT = np.frombuffer(
    b"the quick brown fox jumps over the lazy dog, and then sits down to wait; " * 40, np.uint8
).astype(np.int32)


# The models in PyTorch: functions of (torch, parameters, *batch) that give the loss.


def _xor(torch, p, points, labels):
    f = torch.nn.functional
    h = torch.tanh(f.linear(points, p["layers.0.weight"], p["layers.0.bias"]))
    h = f.batch_norm(h, None, None, p["layers.1.scale"], p["layers.1.bias"], training=True)
    logits = f.linear(h, p["layers.2.weight"], p["layers.2.bias"])
    return f.cross_entropy(logits, labels.long())


def _gpt(torch, p, text):
    f = torch.nn.functional
    heads = example("small_gpt").HEADS

    def dense(name, x):
        return f.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))

    def norm(name, x):
        return f.layer_norm(x, x.shape[-1:], p[f"{name}.scale"], p[f"{name}.bias"])

    def rotary(x):
        half = x.shape[-1] // 2
        rates = 10000.0 ** (-torch.arange(half, dtype=torch.float32) / half)
        angle = torch.arange(x.shape[-2], dtype=torch.float32)[:, None] * rates
        a, b = x[..., :half], x[..., half:]
        c, s = torch.cos(angle), torch.sin(angle)
        return torch.cat([a * c - b * s, a * s + b * c], -1)

    def attention(name, x):
        def split(part):
            y = dense(f"{name}.{part}", x)
            return y.unflatten(-1, (heads, -1)).transpose(1, 2)

        q, k, v = rotary(split("q_proj")), rotary(split("k_proj")), split("v_proj")
        y = f.scaled_dot_product_attention(q, k, v, is_causal=True)
        return dense(f"{name}.out_proj", y.transpose(1, 2).flatten(-2))

    p = {n.removeprefix("gpt."): a for n, a in p.items()}
    text = text.long()
    x = f.embedding(text[:, :-1], p["letters.weight"])
    for i in range(example("small_gpt").DEPTH):
        name = f"blocks.layers.{i}"
        x = x + attention(f"{name}.attention", norm(f"{name}.norm1", x))
        h = f.gelu(dense(f"{name}.dense1", norm(f"{name}.norm2", x)), approximate="tanh")
        x = x + dense(f"{name}.dense2", h)
    logits = dense("readout", norm("blocks.norm", x))
    return f.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())


def _lstm(torch, p, text):
    f = torch.nn.functional
    text = text.long()
    x = f.one_hot(text[:, :-1], 128).float()
    for i in (1, 2):
        wi, wh, bias = (p[f"layers.{i}.cell.{kind}"] for kind in ("Wi", "Wh", "bias"))
        h = c = torch.zeros(len(text), wh.shape[1])
        out = []
        for t in range(x.shape[1]):
            gates = f.linear(x[:, t], wi, bias) + f.linear(h, wh)
            i_, f_, g_, o_ = gates.chunk(4, -1)
            c = torch.sigmoid(f_) * c + torch.sigmoid(i_) * torch.tanh(g_)
            h = torch.sigmoid(o_) * torch.tanh(c)
            out.append(h)
        x = torch.stack(out, 1)
    logits = f.linear(x, p["layers.3.weight"], p["layers.3.bias"])
    return f.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())


class _ClippedAdam:
    """Adam of gradients of at most norm 1, each array's own."""

    def __init__(self, optim, parameters):
        self.parameters = list(parameters)
        self.adam = optim.Adam(self.parameters, 1e-2)
        self.zero_grad = self.adam.zero_grad

    def step(self):
        for p in self.parameters:
            p.grad *= (1.0 / p.grad.norm()).clamp(max=1.0)
        self.adam.step()


# example: how it is fed; its twin; the twin's optimiser.
CASES = {
    "xor": (_xor_batch, _xor, lambda optim, p: optim.Adam(p, 0.01)),
    "char_lstm": (_lstm_batch, _lstm, _ClippedAdam),
    "small_gpt": (_gpt_batch, _gpt, lambda optim, p: optim.Adam(p, 3e-3)),
}


def torch_losses(torch, case, parameters, batches):
    _, twin, rule = case
    p = {n: torch.tensor(a.copy(), requires_grad=True) for n, a in parameters.items()}
    optimiser, losses = rule(torch.optim, p.values()), []
    for batch in batches:
        optimiser.zero_grad()
        loss = twin(torch, p, *map(torch.tensor, batch))
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return np.array(losses)


def plot(curves, path):
    """PyTorch's losses as lines, fluxc's as points, and how far apart they are below."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(curves), 5), layout="constrained")
    axes = figure.subplots(2, len(curves), height_ratios=(3, 1), sharex=True)
    for (name, (theirs, ours)), above, below in zip(curves.items(), *axes, strict=True):
        above.plot(theirs, color="tab:orange", label="PyTorch")
        above.plot(ours, ".", color="tab:blue", label="fluxc")
        above.set(title=f"examples/{name}.py", ylabel="loss")
        above.legend()
        below.semilogy(np.abs(ours / theirs - 1) + 1e-9, color="tab:gray")
        below.axhline(1e-4, color="tab:red", linestyle=":")
        below.set(xlabel="step", ylabel="relative difference")
    figure.savefig(path, dpi=110)


def main():
    import torch  # the one program here that needs it

    arrays, curves = {}, {}
    for name, case in CASES.items():
        made = run(name)
        first = {n: a.copy() for n, a in made.model.parameters.items()}
        theirs = torch_losses(torch, case, first, made.batches)
        curves[name] = (theirs, made.losses())
        arrays[name] = theirs
        print(name, f"largest difference {np.abs(curves[name][1] / theirs - 1).max():.1e}")
    np.savez_compressed(FILE, **arrays)
    plot(curves, ROOT / "docs" / "training-curves.png")


if __name__ == "__main__":
    main()
