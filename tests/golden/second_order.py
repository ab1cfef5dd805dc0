"""Golden values of derivatives of derivatives, by PyTorch.

`python tests/golden/second_order.py` writes second_order.npz beside this file and needs PyTorch;
the tests need the file alone.  A case is a network that gives each example one number, from arrays
of weights.  The file holds, for each, the penalty of WGAN-GP, mean((|d network / d x| - 1)**2), and
its gradients by the weights; the product of the Hessian of mean(tanh(network)**2) by the weights
with a direction; the gradients of network(x[i])**2 by the weights, for each example; the Jacobian
of network(x) by the weights; and the Hessian of network(x[0]) by x[0].  For the network of a
differential equation, it holds the loss of Burgers' equation and its gradients.
"""

import zlib
from pathlib import Path

import numpy as np

FILE = Path(__file__).with_suffix(".npz")
BATCH = 4
VISCOSITY = 0.125


def dense(fx, x, w, b, v):
    return fx.tanh(x @ w + b) @ v


def dense_torch(torch, x, w, b, v):
    return torch.tanh(x @ w + b) @ v


def conv(fx, x, w, b, v):
    y = fx.leakyrelu(fx.conv(x, w, stride=2, pad=1) + b, 0.2)
    return (y * fx.sin(y)).reshape((x.shape[0], v.shape[0])) @ v


def conv_torch(torch, x, w, b, v):
    f = torch.nn.functional
    y = f.leaky_relu(f.conv2d(x, w, stride=2, padding=1) + b, 0.2)
    return (y * torch.sin(y)).reshape(x.shape[0], -1) @ v


def normed(fx, x, w, scale, bias, v):
    y = x @ w
    y = y - y.mean(axis=-1, keepdims=True)
    y = y / fx.sqrt((y * y).mean(axis=-1, keepdims=True) + 1e-5) * scale + bias
    return fx.logsumexp(fx.softplus(y) * v, axis=-1)


def normed_torch(torch, x, w, scale, bias, v):
    f = torch.nn.functional
    y = f.layer_norm(x @ w, w.shape[1:], scale, bias, eps=1e-5)
    return torch.logsumexp(f.softplus(y) * v, -1)


def recurrent(fx, x, wx, wh, v):
    def step(h, row):
        return fx.tanh(row @ wx + h @ wh), None

    start = fx.zeros((x.shape[0], wh.shape[0]), x.dtype)
    return fx.scan(step, start, fx.moveaxis(x, 1, 0))[0] @ v


def recurrent_torch(torch, x, wx, wh, v):
    h = torch.zeros(x.shape[0], wh.shape[0], dtype=x.dtype)
    for t in range(x.shape[1]):
        h = torch.tanh(x[:, t] @ wx + h @ wh)
    return h @ v


def attention(fx, x, wq, wk, wv, v):
    y = fx.attention(x @ wq, x @ wk, x @ wv)
    return (y @ v).sum(-1)


def attention_torch(torch, x, wq, wk, wv, v):
    scores = (x @ wq) @ (x @ wk).transpose(-1, -2) / wq.shape[1] ** 0.5
    return (torch.softmax(scores, -1) @ (x @ wv) @ v).sum(-1)


# name: shape of an example, shapes of the weights, the network in fluxc and in PyTorch
CASES = {
    "dense": ((5,), [(5, 7), (7,), (7,)], dense, dense_torch),
    "conv": ((2, 5, 5), [(3, 2, 3, 3), (3, 1, 1), (27,)], conv, conv_torch),
    "normed": ((5,), [(5, 6), (6,), (6,), (6,)], normed, normed_torch),
    "recurrent": ((3, 4), [(4, 5), (5, 5), (5,)], recurrent, recurrent_torch),
    "attention": ((3, 4), [(4, 2), (4, 2), (4, 3), (3,)], attention, attention_torch),
}


def numbers(label, shape):
    """Multiples of 1/64 that depend on nothing but the label."""
    rng = np.random.default_rng(zlib.crc32(label.encode()))
    return np.rint(rng.normal(size=shape) * 32) / 64


def examples(name):
    return numbers(f"{name}.x", (BATCH, *CASES[name][0]))


def weights(name):
    return [numbers(f"{name}.{i}", shape) for i, shape in enumerate(CASES[name][1])]


def direction(name):
    return [numbers(f"{name}.d{i}", shape) for i, shape in enumerate(CASES[name][1])]


def places():
    """Places and times at which Burgers' equation should hold, and the network's weights."""
    shapes = [(2, 6), (6,), (6,)]
    return numbers("x", (BATCH, 2)), [numbers(f"w{i}", s) for i, s in enumerate(shapes)]


def penalty(torch, network, x, ws):
    x = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(network(torch, x, *ws).sum(), x, create_graph=True)
    return ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()


def burgers(torch, x, ws):
    """mean((u_t + u u_x - VISCOSITY u_xx)**2)."""
    x = x.clone().requires_grad_()
    u = dense_torch(torch, x, *ws)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad(slope[:, 0].sum(), x, create_graph=True)
    return ((slope[:, 1] + u * slope[:, 0] - VISCOSITY * bend[:, 0]) ** 2).mean()


def tensors(torch, arrays):
    return [torch.tensor(a, requires_grad=True) for a in arrays]


def numbered(label, results):
    return {f"{label}{i}": r.detach().numpy() for i, r in enumerate(results)}


def derivatives(torch, name):
    """All that the file holds of one network."""
    grad, matrices = torch.autograd.grad, torch.autograd.functional
    network = CASES[name][3]
    x, ws = torch.tensor(examples(name)), tensors(torch, weights(name))
    value = penalty(torch, network, x, ws)
    loss = (torch.tanh(network(torch, x, *ws)) ** 2).mean()
    slopes = grad(loss, ws, create_graph=True)
    along = sum((g * torch.tensor(d)).sum() for g, d in zip(slopes, direction(name), strict=True))
    each = [grad(network(torch, one[None], *ws)[0] ** 2, ws) for one in x]
    jacobian = matrices.jacobian(lambda *ws: network(torch, x, *ws), tuple(ws))
    hessian = matrices.hessian(lambda one: network(torch, one[None], *ws)[0], x[0])
    found = {"penalty": value.detach().numpy(), "hessian": hessian.detach().numpy()}
    found |= numbered("penalty.d", grad(value, ws))
    found |= numbered("curvature", grad(along, ws))
    found |= numbered("each", [torch.stack(g) for g in zip(*each, strict=True)])
    found |= numbered("jacobian", jacobian)
    return {f"{name}.{label}": array for label, array in found.items()}


def main():
    import torch  # the one program here that needs it

    arrays = {}
    for name in CASES:
        arrays |= derivatives(torch, name)
    x, ws = places()
    ws = tensors(torch, ws)
    value = burgers(torch, torch.tensor(x), ws)
    arrays |= {"burgers": value.detach().numpy()}
    arrays |= numbered("burgers.d", torch.autograd.grad(value, ws))
    np.savez_compressed(FILE, **arrays)
    print(f"{len(arrays)} arrays, {FILE.stat().st_size} bytes")


if __name__ == "__main__":
    main()
