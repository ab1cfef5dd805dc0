"""What golden scripts of functions share: operands, cotangents, how values are kept."""

import zlib

import numpy as np


def generator(name, offset=0):
    """Random numbers of a case's own."""
    return np.random.default_rng(zlib.crc32(name.encode()) + offset)


def normal(name, shapes):
    """Operands that are multiples of 1/64, which every float dtype holds."""
    rng = generator(name)
    return [np.rint(rng.normal(size=shape) * 64) / 64 for shape in shapes]


def seed(name, shape):
    """What the result is multiplied by before it is summed and differentiated."""
    return generator(name, 1).normal(size=shape)


def record(file, cases, inputs, apply, *, seed=seed, dtype=np.float64):
    """Write `name.y`, and the gradients `name.g0`, ... of `sum(y * seed)`, of every case.

    apply  gives the result of `(torch, name, operands)`; operands are float64.
    """
    import torch  # only who makes golden values needs it

    arrays = {}
    for name in cases:
        xs = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in inputs(name)]
        y = apply(torch, name, xs)
        total = (y * torch.tensor(seed(name, y.shape))).sum()
        found = {"y": y}
        found |= {f"g{i}": g for i, g in enumerate(torch.autograd.grad(total, xs))}
        arrays |= {f"{name}.{k}": v.detach().numpy().astype(dtype) for k, v in found.items()}
    np.savez_compressed(file, **arrays)
    print(f"{len(cases)} cases, {file.stat().st_size} bytes")
