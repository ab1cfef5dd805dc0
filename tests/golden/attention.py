"""Golden values of attention and transformer blocks, with gradients.

`python tests/golden/attention.py` writes attention.npz beside this file and needs PyTorch; the
tests need the file alone.  For each case it holds the result and the gradients of
`sum(result * seed)` by every float operand and every parameter, in float64.
"""

import zlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
MASK = np.random.default_rng(5).random((2, 1, 5, 7)) < 0.6
MASK[..., 2] = True  # every query sees a key
KEYS = np.array([[True] * 7, [True] * 3 + [False] * 4])[:, None, None, :]
Q, K, V = (2, 3, 5, 6), (2, 3, 7, 6), (2, 3, 7, 4)


def _sdpa(**options):
    return lambda torch, *x: torch.nn.functional.scaled_dot_product_attention(*x, **options)


def _masked(mask):
    def f(torch, *x):
        return _sdpa(attn_mask=torch.tensor(mask))(torch, *x)

    return f


# name: shapes of the operands, options of fx.attention, by PyTorch.
FUNCTIONS = {
    "plain": ((Q, K, V), {}, _sdpa()),
    "scale": ((Q, K, V), {"scale": 0.3}, _sdpa(scale=0.3)),
    "causal": ((Q, K, V), {"causal": True}, _sdpa(is_causal=True)),
    "causal_tall": (((2, 7, 3), (2, 4, 3), (2, 4, 3)), {"causal": True}, _sdpa(is_causal=True)),
    "mask": ((Q, K, V), {"mask": MASK}, _masked(MASK)),
    "keys": ((Q, K, V), {"mask": KEYS}, _masked(KEYS)),
    "bias": (
        (Q, K, V, (3, 5, 7)),
        {},
        lambda torch, q, k, v, b: _sdpa(attn_mask=b)(torch, q, k, v),
    ),
    "matrices": (((5, 6), (7, 6), (7, 1)), {}, _sdpa()),
    "one_key": (((2, 3, 1, 6), (2, 3, 1, 6), (2, 3, 1, 6)), {}, _sdpa()),
    "grouped": (
        ((2, 6, 5, 4), (2, 2, 7, 4), (2, 2, 7, 3)),
        {"causal": True},
        _sdpa(is_causal=True, enable_gqa=True),
    ),
    "multi_query": (((6, 5, 4), (1, 7, 4), (1, 7, 4)), {}, _sdpa(enable_gqa=True)),
}


@dataclass(frozen=True)
class Layer:
    """A layer of fluxc.nn, one of torch.nn, and what they are called with."""

    make: object
    peer: object
    inputs: tuple
    call: dict = field(default_factory=dict)
    peer_call: object = lambda _: {}
    result: object = lambda y: y


def _first(y):
    return y[0]


D = {"dropout_prob": 0.0, "dtype": "f64"}
X, MEMORY = (2, 5, 8), (2, 7, 8)


def _peer(name, *args, **options):
    options = {"dropout": 0.0, "batch_first": True, **options}
    return lambda torch: getattr(torch.nn, name)(*args, **options).double()


def _causal(torch):
    return {"tgt_mask": torch.ones(5, 5).tril() == 0, "tgt_is_causal": False}


LAYERS = {
    "self_attention": Layer(
        lambda fx: fx.nn.MultiHeadAttention(8, nheads=2, bias=True, dtype="f64"),
        _peer("MultiheadAttention", 8, 2),
        (X,),
        result=_first,
    ),
    "cross_attention": Layer(
        lambda fx: fx.nn.MultiHeadAttention((8, 6, 10), 8, 8, nheads=4, dtype="f64"),
        _peer("MultiheadAttention", 8, 4, kdim=6, vdim=10, bias=False),
        (X, (2, 7, 6), (2, 7, 10)),
        {"mask": KEYS},
        lambda torch: {"key_padding_mask": torch.tensor(~KEYS[:, 0, 0])},
        result=_first,
    ),
    "encoder_post": Layer(
        lambda fx: fx.nn.TransformerEncoderLayer(8, 2, 12, **D),
        _peer("TransformerEncoderLayer", 8, 2, 12),
        (X,),
        {"causal": True},
        lambda torch: {"src_mask": torch.ones(5, 5).tril() == 0, "is_causal": False},
    ),
    "encoder_pre": Layer(
        lambda fx: fx.nn.TransformerEncoderLayer(8, 4, 12, fx.gelu_erf, norm_first=True, **D),
        _peer("TransformerEncoderLayer", 8, 4, 12, norm_first=True, activation="gelu"),
        (X,),
    ),
    "decoder_post": Layer(
        lambda fx: fx.nn.TransformerDecoderLayer(8, 2, 12, **D),
        _peer("TransformerDecoderLayer", 8, 2, 12),
        (X, MEMORY),
        {},
        _causal,
    ),
    "decoder_pre": Layer(
        lambda fx: fx.nn.TransformerDecoderLayer(8, 2, 12, norm_first=True, **D),
        _peer("TransformerDecoderLayer", 8, 2, 12, norm_first=True),
        (X, MEMORY),
        {"causal": False, "memory_mask": KEYS},
        lambda torch: {"memory_key_padding_mask": torch.tensor(~KEYS[:, 0, 0])},
    ),
}


def draw(name, shape):
    """Multiples of 1/64 that belong to a name."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    return np.rint(rng.normal(size=shape) * 64) / 64


def inputs(name):
    """The float operands of a case."""
    shapes = FUNCTIONS[name][0] if name in FUNCTIONS else LAYERS[name].inputs
    return [draw(f"{name}/{i}", shape) for i, shape in enumerate(shapes)]


def parameters(name, shapes):
    """The parameters of a layer, by fluxc's names, for their shapes."""
    return {path: draw(f"{name}/{path}", shape) for path, shape in shapes.items()}


def seed(name, shape):
    """What the result is multiplied by before it is summed and differentiated."""
    return draw(f"{name}/seed", shape)


_RENAMED = {
    "attention": "self_attn", "cross_attention": "multihead_attn", "dense1": "linear1",
    "dense2": "linear2", "scale": "weight",
}  # fmt: skip


def _find(module, path):
    """PyTorch's parameter of fluxc's name, and the rows of it that it is."""
    parts = [_RENAMED.get(p, p) for p in path.split(".")]
    *owners, projection, leaf = parts
    if projection not in ("q_proj", "k_proj", "v_proj"):
        return module.get_parameter(".".join(parts)), slice(None)
    owner = module.get_submodule(".".join(owners))
    if getattr(owner, f"{projection}_weight", None) is not None and leaf == "weight":
        return getattr(owner, f"{projection}_weight"), slice(None)
    whole = getattr(owner, f"in_proj_{leaf}")
    third = whole.shape[0] // 3
    at = "qkv".index(projection[0]) * third
    return whole, slice(at, at + third)


def _layer(torch, name):
    import fluxc as fx

    case = LAYERS[name]
    own = case.make(fx).parameters()
    given = parameters(name, {path: p.shape for path, p in own.items()})
    peer = case.peer(torch)
    found = {path: _find(peer, path) for path in given}
    assert sum(v.size for v in given.values()) == sum(p.numel() for p in peer.parameters())
    with torch.no_grad():
        for path, (whole, rows) in found.items():
            whole[rows] = torch.tensor(given[path])
    xs = [torch.tensor(x, requires_grad=True) for x in inputs(name)]
    operands = xs * 3 if name == "self_attention" else xs
    y = case.result(peer(*operands, **case.peer_call(torch)))
    (y * torch.tensor(seed(name, y.shape))).sum().backward()
    gradients = {path: whole.grad[rows] for path, (whole, rows) in found.items()}
    return y, [x.grad for x in xs], gradients


def main():
    import torch  # the one program here that needs it

    arrays = {}
    for name, (_, _, function) in FUNCTIONS.items():
        xs = [torch.tensor(x, requires_grad=True) for x in inputs(name)]
        y = function(torch, *xs)
        gradients = torch.autograd.grad((y * torch.tensor(seed(name, y.shape))).sum(), xs)
        arrays[name] = y.detach().numpy()
        arrays |= {f"{name}/d{i}": g.numpy() for i, g in enumerate(gradients)}
    for name in LAYERS:
        y, by_inputs, by_parameters = _layer(torch, name)
        arrays[name] = y.detach().numpy()
        arrays |= {f"{name}/d{i}": g.numpy() for i, g in enumerate(by_inputs)}
        arrays |= {f"{name}/{path}": g.numpy() for path, g in by_parameters.items()}
    np.savez_compressed(FILE, **arrays)


if __name__ == "__main__":
    main()
