"""One body, two heads; results in nested dicts; a training step that returns extras."""

import fluxc as fx
from fluxc import losses, nn, optim

body = nn.Chain(nn.Dense(6, 12, fx.tanh), nn.Dense(12, 8, fx.tanh))
heads = {"kind": nn.Dense(8, 4), "size": nn.Dense(8, 1)}


def forward(x):
    features = body(x)
    return {"kind": heads["kind"](features), "size": heads["size"](features)[:, 0]}


@fx.export
def predict(x: fx.f32["n", 6]):
    out = forward(x)
    return {"kind": fx.softmax(out["kind"]), "extra": (out["size"], [out["size"].mean()])}


@fx.export(optimizer=optim.RMSProp(3e-3))
def train_step(x: fx.f32["n", 6], kind: fx.u8["n"], size: fx.f32["n"]):
    out = forward(x)
    first = losses.logitcrossentropy(out["kind"], kind)
    second = losses.huber_loss(out["size"], size)
    return first + 0.5 * second, {"kind": first, "size": second}, out["size"]
