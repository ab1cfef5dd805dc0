"""Golden values of recurrent layers: outputs, last states and gradients by PyTorch.

`python tests/golden/recurrent.py` writes recurrent.npz beside this file and needs PyTorch; the
tests need the file alone.  A case is a module of PyTorch, its arguments, and whether it has an
initial state and lengths.  The file holds outputs, last states, and the gradients of
`sum(output * seed) + sum(state * seed)` by the input, the initial states and the weights.
"""

import zlib
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
BATCH, TIME, IN, OUT = 3, 5, 3, 4
LENGTHS = np.array([5, 2, 3], np.int32)

# name: module, layers, bidirectional, options, has a state, has lengths
CASES = {
    "rnn": ("RNN", 1, False, {}, False, False),
    "rnn_relu": ("RNN", 1, False, {"nonlinearity": "relu"}, True, False),
    "lstm": ("LSTM", 1, False, {}, True, False),
    "gru": ("GRU", 1, False, {}, True, False),
    "lstm_no_bias": ("LSTM", 1, False, {"bias": False}, False, False),
    "lstm_lengths": ("LSTM", 1, False, {}, True, True),
    "gru_both_ways": ("GRU", 1, True, {}, True, False),
    "rnn_both_ways_lengths": ("RNN", 1, True, {}, False, True),
    "lstm_two_layers": ("LSTM", 2, False, {}, True, False),
    "lstm_all": ("LSTM", 2, True, {}, True, True),
    "gru_all": ("GRU", 2, True, {}, True, True),
}


def numbers(label, shape, scale=1.0):
    """Multiples of 1/64 that depend on nothing but the label."""
    rng = np.random.default_rng(zlib.crc32(label.encode()))
    return np.rint(rng.normal(size=shape) * 64 * scale) / 64


def weights(name):
    """PyTorch's weights of a case by their names."""
    module, layers, both, options, _, _ = CASES[name]
    rows = {"RNN": 1, "LSTM": 4, "GRU": 3}[module] * OUT
    shapes = {}
    for layer in range(layers):
        wide = IN if layer == 0 else OUT * (1 + both)
        for end in ("", "_reverse")[: 1 + both]:
            suffix = f"_l{layer}{end}"
            shapes |= {f"weight_ih{suffix}": (rows, wide), f"weight_hh{suffix}": (rows, OUT)}
            if options.get("bias", True):
                shapes |= {f"bias_ih{suffix}": (rows,), f"bias_hh{suffix}": (rows,)}
    return {label: numbers(f"{name}.{label}", shape, 0.5) for label, shape in shapes.items()}


def states(name):
    """The initial states of a case, [layers * ways, batch, out]; none where it has none."""
    module, layers, both, _, has_state, _ = CASES[name]
    shape = (layers * (1 + both), BATCH, OUT)
    labels = (("h", "c") if module == "LSTM" else ("h",)) if has_state else ()
    return [numbers(f"{name}.{label}", shape) for label in labels]


def inputs(name):
    return numbers(f"{name}.x", (BATCH, TIME, IN))


def seed(name, label, shape):
    """What a result is multiplied by before all are summed and differentiated."""
    return numbers(f"{name}.seed.{label}", shape)


def main():
    import torch  # the one program here that needs it
    from torch.nn.utils import rnn

    arrays = {}
    for name, (module, layers, both, options, has_state, has_lengths) in CASES.items():
        layer = getattr(torch.nn, module)(
            IN, OUT, layers, batch_first=True, bidirectional=both, dtype=torch.float64, **options
        )
        layer.load_state_dict({k: torch.tensor(w) for k, w in weights(name).items()})
        x = torch.tensor(inputs(name), requires_grad=True)
        start = [torch.tensor(s, requires_grad=True) for s in states(name)]
        given = x
        if has_lengths:
            given = rnn.pack_padded_sequence(
                x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
            )
        begin = [tuple(start) if len(start) > 1 else start[0]] if has_state else []
        y, last = layer(given, *begin)
        if has_lengths:
            y, _ = rnn.pad_packed_sequence(y, batch_first=True, total_length=TIME)
        results = {"y": y, "h": last[0], "c": last[1]} if module == "LSTM" else {"y": y, "h": last}
        total = sum((r * torch.tensor(seed(name, k, r.shape))).sum() for k, r in results.items())
        leaves = {"dx": x} | {f"d{k}0": s for k, s in zip("hc", start, strict=False)}
        leaves |= {f"d.{k}": w for k, w in layer.named_parameters()}
        gradients = torch.autograd.grad(total, list(leaves.values()))
        found = results | dict(zip(leaves, gradients, strict=True))
        arrays |= {f"{name}.{k}": v.detach().numpy() for k, v in found.items()}
    np.savez_compressed(FILE, **arrays)
    print(f"{len(CASES)} cases, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
