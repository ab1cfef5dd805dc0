"""Every dtype at the door: floats of four widths, integers, bools, and mixtures of them."""

import fluxc as fx
from fluxc import losses, nn, optim

wide = nn.Chain(nn.Dense(4, 8, fx.tanh, dtype="f64"), nn.Dense(8, 2, dtype="f64"))
half = nn.Chain(nn.Dense(4, 8, fx.relu, dtype=fx.f16), nn.Dense(8, 2, dtype=fx.f16))
brain = nn.Chain(
    nn.Dense(4, 8, fx.gelu, dtype=fx.bf16), nn.LayerNorm(8), nn.Dense(8, 2, dtype=fx.bf16)
)


@fx.export
def predict_wide(x: fx.f64["n", 4]):
    return fx.logsoftmax(wide(x))


@fx.export
def predict_half(x: fx.f16["n", 4]):
    return half(x), half(x).astype(fx.f32).sum(axis=0)


@fx.export
def predict_brain(x: fx.bf16["n", 4]):
    return brain(x)


@fx.export(optimizer=optim.Adam(1e-2))
def train_wide(x: fx.f64["n", 4], y: fx.i64["n"]):
    return losses.logitcrossentropy(wide(x), y)


@fx.export(optimizer=optim.Adam(1e-2))
def train_half(x: fx.f16["n", 4], y: fx.f16["n", 2]):
    return losses.mse(half(x), y)


@fx.export(optimizer=optim.Momentum(1e-2))
def train_brain(x: fx.bf16["n", 4], y: fx.bf16["n", 2]):
    return losses.mse(brain(x).astype(fx.f32), y)


@fx.export
def integers(a: fx.i32["n"], b: fx.i8["n"], c: fx.u8["n"], d: fx.i16["n"], e: fx.i64["n"]):
    met = b * c
    return {
        "floor": a // 3,
        "mod": a % 7,
        "met": met,
        "half": d / 2,
        "bits": (e & 0xFF) ^ (e >> 3),
        "sum": c.sum(),
        "mean": b.mean(),
        "float": c.astype(fx.f32) / 255,
    }


@fx.export
def logic(p: fx.bool_["n"], q: fx.bool_["n"], x: fx.f32["n"]):
    return p & ~q, (p | q).any(), fx.where(p, x, -x), p.sum(), (p ^ q).astype(fx.i32) + 1, x > 0


@fx.export
def scaled(x: fx.f32["n"], factor: fx.f32, times: fx.i32):
    return x * factor + times, factor
