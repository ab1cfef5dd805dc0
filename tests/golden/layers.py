"""Layers as PyTorch has them: `python tests/golden/layers.py` writes layers.npz.

The tests need the file, not PyTorch.  Inputs, parameters and statistics are multiples of 1/64, so
that every precision holds them.
"""

import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

FILE = Path(__file__).with_suffix(".npz")


@dataclass(frozen=True)
class Case:
    """A layer in both.

    inputs:     shapes of float inputs, or arrays.
    ours:       (fx) -> the layer.
    theirs:     (torch) -> the module, or a function of (module's parameters by our name, *inputs).
    parameters: our names and PyTorch's.
    states:     our names and PyTorch's.
    training:   the mode.
    """

    inputs: tuple[Any, ...]
    ours: Any
    theirs: Any
    parameters: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    training: bool = False


DENSE = {"weight": "weight", "bias": "bias"}
NORM = {"scale": "weight", "bias": "bias"}
STATS = {"mean": "running_mean", "var": "running_var"}
NORMED = {
    "layer.weight": "parametrizations.weight.original1",
    "g": "parametrizations.weight.original0",
    "layer.bias": "bias",
}
TOKENS = np.array([[4, 0, 2], [2, 2, 6]], np.int32)
FLAT = np.array([4, 0, 2, 2, 6, 1, 3], np.int32)
OFFSETS = np.array([0, 3, 3, 5], np.int32)


def _normed(torch, layer):
    return torch.nn.utils.parametrizations.weight_norm(layer)


def _bags(mode, *inputs):
    return Case(
        inputs,
        lambda fx: fx.nn.EmbeddingBag(7, 4, mode),
        lambda t: t.nn.EmbeddingBag(7, 4, mode=mode),
        {"weight": "weight"},
    )


def _batch_norm(shape, training, **options):
    rank = max(len(shape) - 2, 1)
    theirs = {"track_stats": "track_running_stats"}
    keywords = {theirs.get(k, k): v for k, v in options.items()}
    return Case(
        (shape,),
        lambda fx: fx.nn.BatchNorm(shape[1], **options),
        lambda t: getattr(t.nn, f"BatchNorm{rank}d")(shape[1], **keywords),
        NORM if options.get("affine", True) else {},
        STATS if options.get("track_stats", True) else {},
        training=training,
    )


def _instance_norm(shape, training, **options):
    theirs = {"track_stats": "track_running_stats"}
    keywords = {theirs.get(k, k): v for k, v in options.items()}
    return Case(
        (shape,),
        lambda fx: fx.nn.InstanceNorm(shape[1], **options),
        lambda t: getattr(t.nn, f"InstanceNorm{len(shape) - 2}d")(shape[1], **keywords),
        NORM if options.get("affine") else {},
        STATS if options.get("track_stats") else {},
        training=training,
    )


TRACKED = {"affine": True, "track_stats": True, "momentum": 0.25}
CASES = {
    "dense": Case(
        ((3, 5),), lambda fx: fx.nn.Dense(5, 4), lambda t: t.nn.Linear(5, 4), DENSE
    ),
    "dense_vector": Case(
        ((5,),),
        lambda fx: fx.nn.Dense(5, 4, bias=False),
        lambda t: t.nn.Linear(5, 4, bias=False),
        {"weight": "weight"},
    ),
    "dense_rank4": Case(
        ((2, 3, 2, 5),), lambda fx: fx.nn.Dense(5, 1), lambda t: t.nn.Linear(5, 1), DENSE
    ),
    "bilinear": Case(
        ((2, 3, 5), (2, 3, 4)),
        lambda fx: fx.nn.Bilinear((5, 4), 3),
        lambda t: t.nn.Bilinear(5, 4, 3),
        DENSE,
    ),
    "bilinear_nobias": Case(
        ((3, 2), (3, 2)),
        lambda fx: fx.nn.Bilinear(2, 3, bias=False),
        lambda t: t.nn.Bilinear(2, 2, 3, bias=False),
        {"weight": "weight"},
    ),
    "embedding": Case(
        (TOKENS,),
        lambda fx: fx.nn.Embedding(7, 4),
        lambda t: t.nn.Embedding(7, 4),
        {"weight": "weight"},
    ),
    "embedding_padding": Case(
        (TOKENS,),
        lambda fx: fx.nn.Embedding(7, 4, padding_idx=2),
        lambda t: t.nn.Embedding(7, 4, padding_idx=2),
        {"weight": "weight"},
    ),
    "bag_mean": _bags("mean", TOKENS),
    "bag_sum": _bags("sum", TOKENS),
    "bag_max": _bags("max", TOKENS[:, :2]),
    "bag_mean_offsets": _bags("mean", FLAT, OFFSETS),
    "bag_sum_offsets": _bags("sum", FLAT, OFFSETS),
    "bag_max_offsets": _bags("max", FLAT, np.array([0, 3, 3, 5, 7], np.int32)),
    "weight_norm_dense": Case(
        ((3, 5),),
        lambda fx: fx.nn.WeightNorm(fx.nn.Dense(5, 4)),
        lambda t: _normed(t, t.nn.Linear(5, 4)),
        NORMED,
    ),
    "weight_norm_conv": Case(
        ((2, 2, 4, 3),),
        lambda fx: fx.nn.WeightNorm(fx.nn.Conv((2, 2), 2, 3)),
        lambda t: _normed(t, t.nn.Conv2d(2, 3, 2)),
        NORMED,
    ),
    "batch_norm_train": _batch_norm((5, 3), training=True),
    "batch_norm_test": _batch_norm((5, 3), training=False),
    "batch_norm_1d": _batch_norm((2, 3, 4), training=True, momentum=0.25, eps=1e-3),
    "batch_norm_2d": _batch_norm((2, 3, 4, 5), training=True),
    "batch_norm_3d": _batch_norm((2, 3, 2, 1, 3), training=True, affine=False),
    "batch_norm_2d_test": _batch_norm((2, 3, 4, 5), training=False),
    "batch_norm_untracked": _batch_norm((4, 3), training=False, track_stats=False),
    "instance_norm": _instance_norm((2, 3, 4, 5), training=True),
    "instance_norm_1d": _instance_norm((2, 3, 4), training=False, affine=True),
    "instance_norm_tracked": _instance_norm((2, 3, 4, 5), training=True, **TRACKED),
    "instance_norm_tracked_test": _instance_norm((2, 3, 4, 5), training=False, **TRACKED),
    "group_norm": Case(
        ((2, 6, 3, 2),),
        lambda fx: fx.nn.GroupNorm(6, 3),
        lambda t: t.nn.GroupNorm(3, 6),
        NORM,
    ),
    "group_norm_flat": Case(
        ((3, 6),), lambda fx: fx.nn.GroupNorm(6, 2), lambda t: t.nn.GroupNorm(2, 6), NORM
    ),
    "group_norm_plain": Case(
        ((2, 4, 5),),
        lambda fx: fx.nn.GroupNorm(4, 1, affine=False),
        lambda t: t.nn.GroupNorm(1, 4, affine=False),
    ),
    "layer_norm": Case(
        ((2, 3, 4),), lambda fx: fx.nn.LayerNorm(4), lambda t: t.nn.LayerNorm(4), NORM
    ),
    "layer_norm_axes": Case(
        ((2, 3, 4),), lambda fx: fx.nn.LayerNorm(3, 4), lambda t: t.nn.LayerNorm((3, 4)), NORM
    ),
    "rms_norm": Case(
        ((2, 3, 4),),
        lambda fx: fx.nn.RMSNorm(4),
        lambda t: t.nn.RMSNorm(4, eps=1e-5),
        {"scale": "weight"},
    ),
    "rms_norm_axes": Case(
        ((2, 3, 4),),
        lambda fx: fx.nn.RMSNorm(3, 4, affine=False),
        lambda t: t.nn.RMSNorm((3, 4), eps=1e-5, elementwise_affine=False),
    ),
    "local_response_norm": Case(
        ((2, 5, 3, 2),),
        lambda fx: fx.nn.LocalResponseNorm(3, 0.5, 0.75, 2.0),
        lambda t: t.nn.LocalResponseNorm(3, 0.5, 0.75, 2.0),
    ),
    "local_response_norm_even": Case(
        ((2, 3, 4),),
        lambda fx: fx.nn.LocalResponseNorm(4, 0.5),
        lambda t: t.nn.LocalResponseNorm(4, 0.5),
    ),
}  # fmt: skip


def _draw(text, shape):
    rng = np.random.default_rng(zlib.crc32(text.encode()))
    return np.rint(rng.normal(size=shape) * 64) / 64


def inputs(name):
    """The inputs of a case."""
    given = CASES[name].inputs
    return [
        a if isinstance(a, np.ndarray) else _draw(f"{name} {i}", a).astype(np.float32)
        for i, a in enumerate(given)
    ]


def value(name, path, shape):
    """A parameter or a state, by our name; variances and lengths are positive."""
    drawn = _draw(f"{name} {path}", shape)
    return abs(drawn) + 0.5 if path in {"var", "g"} else drawn


def seed(name, shape):
    """What the result is multiplied by before it is summed and differentiated."""
    return _draw(f"{name} seed", shape)


def _tensor(torch, array):
    if array.dtype.kind == "i":
        return torch.tensor(array, dtype=torch.int64)
    return torch.tensor(array, dtype=torch.float64, requires_grad=True)


def _values(torch, name):
    case = CASES[name]
    module = case.theirs(torch).double().train(case.training)
    own = dict(module.named_parameters()) | dict(module.named_buffers())
    with torch.no_grad():
        for ours, theirs in (case.parameters | case.states).items():
            own[theirs].copy_(torch.tensor(value(name, ours, tuple(own[theirs].shape))))
    xs = [_tensor(torch, x) for x in inputs(name)]
    y = module(*xs)
    wrt = {f"g{i}": x for i, x in enumerate(xs) if x.requires_grad}
    wrt |= {f"g.{ours}": own[theirs] for ours, theirs in case.parameters.items()}
    total = (y * torch.tensor(seed(name, tuple(y.shape)))).sum()
    gradients = torch.autograd.grad(total, list(wrt.values()))
    yield "y", y
    yield from zip(wrt, gradients, strict=True)
    if case.training:
        yield from ((f"s.{ours}", own[theirs]) for ours, theirs in case.states.items())


def main():
    import torch  # the one program here that needs it

    arrays = {}
    for name in CASES:
        for label, tensor in _values(torch, name):
            arrays[f"{name}/{label}"] = tensor.detach().numpy().astype(np.float32)
    np.savez_compressed(FILE, **arrays)
    print(f"{len(CASES)} cases, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
