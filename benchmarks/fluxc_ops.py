"""The operator vocabulary of the peer harness on fluxc: its workloads are traced as they are."""

import fluxc as fx
from fluxc import losses

relu, relu6, gelu, gelu_tanh = fx.relu, fx.relu6, fx.gelu_erf, fx.gelu
matmul, exp, sum, softmax = fx.matmul, fx.exp, fx.sum, fx.softmax
linear, reshape, transpose, concat = fx.linear, fx.reshape, fx.transpose, fx.concatenate
BN_EPS, BN_MOMENTUM = 1e-5, 0.1


def embedding(w, ids):
    return fx.take(w, ids, axis=0)


def split(x, n, axis):
    return fx.split(x, n, axis)


def split_at(x, at, axis):
    return fx.split(x, [at], axis)


def layer_norm(x, w, b, eps):
    centred = x - x.mean(-1, keepdims=True)
    var = (centred * centred).mean(-1, keepdims=True)
    return centred * fx.rsqrt(var + eps) * w + b


def cross_entropy(logits, labels):
    return losses.logitcrossentropy(logits, labels)


def bce_with_logits_sum(logits, target):
    return losses.logitbinarycrossentropy(logits, target, agg=fx.sum)


def _channels(x):
    return fx.reshape(x, (-1, 1, 1))


def conv2d(x, w, b=None, stride=1, padding=0, groups=1):
    y = fx.conv(x, w, stride=stride, pad=padding, groups=groups)
    return y if b is None else y + _channels(b)


def batch_norm(x, p, n, train):
    """As `nn.BatchNorm` computes it, over parameters that have the harness's names."""
    mean, var = p[f"{n}.running_mean"], p[f"{n}.running_var"]
    if train:
        count = fx.array(x.shape[0] * x.shape[2] * x.shape[3]).astype(fx.f32)
        batch_mean = x.mean((0, 2, 3))
        centred = x - _channels(batch_mean)
        batch_var = (centred * centred).mean((0, 2, 3))
        unbiased = fx.stop_gradient(batch_var) * (count / (count - 1))
        mean.assign(mean * (1 - BN_MOMENTUM) + fx.stop_gradient(batch_mean) * BN_MOMENTUM)
        var.assign(var * (1 - BN_MOMENTUM) + unbiased * BN_MOMENTUM)
        mean, var = batch_mean, batch_var
    factor = fx.rsqrt(var + BN_EPS) * p[f"{n}.weight"]
    return (x - _channels(mean)) * _channels(factor) + _channels(p[f"{n}.bias"])


def max_pool2d(x, k, stride, padding=0):
    return fx.maxpool(x, k, stride, padding)


def global_avg_pool(x):
    return x.mean((2, 3))


def flatten(x):
    return fx.nn.flatten(x)


def last_step(y):
    return y[:, -1]


def attention(q, k, v, causal=False):
    return fx.attention(q, k, v, causal=causal)


def _recurrent(x, layers, gates, step, start):
    """Layers over [batch, time, features] whose step sees the input's products of all steps."""
    y = x
    for w_ih, w_hh, b_ih, b_hh in layers:
        inputs = fx.moveaxis(fx.linear(y, w_ih, b_ih), 1, 0)
        hidden = w_hh.shape[1]
        first = start(fx.zeros((x.shape[0], hidden)))

        def advance(state, row, w_hh=w_hh, b_hh=b_hh):
            h = state[0] if isinstance(state, tuple) else state
            own = fx.split(row, gates, -1)
            past = fx.split(fx.linear(h, w_hh, b_hh), gates, -1)
            return step(state, own, past)

        _, ys = fx.scan(advance, first, inputs)
        y = fx.moveaxis(ys, 0, 1)
    return y


def lstm(x, layers):
    def step(state, own, past):
        i, f, g, o = (a + b for a, b in zip(own, past, strict=True))
        c = fx.sigmoid(f) * state[1] + fx.sigmoid(i) * fx.tanh(g)
        h = fx.sigmoid(o) * fx.tanh(c)
        return (h, c), h

    return _recurrent(x, layers, 4, step, lambda h: (h, h))


def gru(x, layers):
    def step(h, own, past):
        r, z = (fx.sigmoid(own[i] + past[i]) for i in range(2))
        n = fx.tanh(own[2] + r * past[2])
        h = (1 - z) * n + z * h
        return h, h

    return _recurrent(x, layers, 3, step, lambda h: h)
