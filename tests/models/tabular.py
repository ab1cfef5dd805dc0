"""A classifier of table rows: a category embedded beside numbers, batch norm, dropout."""

import fluxc as fx
from fluxc import losses, nn, optim


class Tabular(fx.Module):
    def __init__(self, categories, numbers, classes):
        self.embed = nn.Embedding(categories, 4)
        self.body = nn.Chain(
            nn.Dense(4 + numbers, 16, bias=False),
            nn.BatchNorm(16, fx.relu),
            nn.Dropout(0.2),
            nn.Dense(16, 16, fx.gelu),
            nn.LayerNorm(16),
            nn.Dense(16, classes),
        )

    def __call__(self, kind, x):
        return self.body(fx.concatenate([self.embed(kind), x], axis=-1))


model = Tabular(7, 5, 3)


@fx.export
def predict(kind: fx.i32["batch"], x: fx.f32["batch", 5]):
    return fx.softmax(model(kind, x), axis=-1)


@fx.export(optimizer=optim.Chain(optim.ClipNorm(1.0), optim.AdamW(1e-2, lambda_=1e-2)))
def train_step(kind: fx.i32["batch"], x: fx.f32["batch", 5], y: fx.i32["batch"]):
    logits = model(kind, x)
    right = fx.take_along_axis(logits, y[:, None])[:, 0] >= logits.max(axis=-1)
    return losses.logitcrossentropy(logits, y), right.mean()
