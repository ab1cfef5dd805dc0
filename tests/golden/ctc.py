"""Golden values of the CTC loss and its gradient, by PyTorch.

`python tests/golden/ctc.py` writes ctc.npz beside this file and needs PyTorch; the tests need the
file alone.  Inputs are raw scores, the batch first; gradients are of `sum(losses * seed)` over the
losses that are finite.
"""

from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
SEED = np.array([1.0, -0.5, 2.0, 0.25, 1.5])

# name: time, classes, blank, targets, their lengths, input lengths
CASES = {
    "plain": (7, 5, 4, [[0, 1, 2], [3, 3, 1], [2, 2, 2], [1, 0, 1], [0, 0, 3]], [3] * 5, [7] * 5),
    "lengths": (
        9, 6, 0,
        [[1, 2, 3, 4], [5, 5, 5, 9], [2, -1, 7, 7], [0, 0, 0, 0], [3, 4, 4, 3]],
        [4, 3, 1, 0, 4],
        [9, 5, 1, 3, 8],
    ),
    "tight": (
        3, 4, 2,
        [[0, 1, 3], [1, 1, 0], [0, 0, 1], [3, 0, 1], [1, 1, 1]],
        [3, 2, 3, 1, 2],
        [3, 3, 3, 2, 1],
    ),
    "extreme": (
        6, 4, 3,
        [[0, 1, 2], [1, 1, 0], [2, 0, 2], [0, 0, 1], [1, 2, 1]],
        [3, 2, 3, 3, 1],
        [6] * 5,
    ),
    "long": (
        60, 5, 4,
        [[0, 1, 2, 2, 3, 0, 0, 1] * 3] * 5,
        [24, 20, 1, 0, 13],
        [60, 50, 60, 40, 33],
    ),
}  # fmt: skip


def scores(name):
    time, classes = CASES[name][:2]
    rng = np.random.default_rng(len(name))
    return np.rint(rng.normal(size=(5, time, classes)) * (64 if name != "extreme" else 3000)) / 64


def main():
    import torch  # the one program here that needs it

    arrays = {}
    for name, (_, _, blank, target, target_lengths, input_lengths) in CASES.items():
        x = torch.tensor(scores(name), requires_grad=True)
        logp = x.log_softmax(-1).transpose(0, 1)
        given = (torch.tensor(target), torch.tensor(input_lengths), torch.tensor(target_lengths))
        ctc = torch.nn.functional.ctc_loss
        loss = ctc(logp, *given, blank=blank, reduction="none")
        zeroed = ctc(logp, *given, blank=blank, reduction="none", zero_infinity=True)
        (gradient,) = torch.autograd.grad((zeroed * torch.tensor(SEED)).sum(), x)
        arrays |= {f"{name}.loss": loss.detach().numpy(), f"{name}.gradient": gradient.numpy()}
    np.savez_compressed(FILE, **arrays)
    print(f"{len(CASES)} cases, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
