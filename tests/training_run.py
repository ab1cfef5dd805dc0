"""A training that is killed and started again: `training_run.py ARTIFACT CHECKPOINTS`.

It has all that keeps a state: shuffled batches, dropout, an optimiser, metrics, callbacks.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np

from fluxc import data, train

MODEL = """\
import fluxc as fx
from fluxc import losses, nn, optim

model = nn.Chain(nn.Dense(4, 8, fx.tanh), nn.Dropout(0.2), nn.Dense(8, 3))


@fx.export
def predict(x: fx.f32["batch", 4]):
    return fx.softmax(model(x), axis=-1)


@fx.export
def loss(x: fx.f32["batch", 4], y: fx.i32["batch"]):
    return losses.logitcrossentropy(model(x), y)


@fx.export(optimizer=optim.Adam(1e-2))
def train_step(x: fx.f32["batch", 4], y: fx.i32["batch"]):
    scores = model(x)
    return losses.logitcrossentropy(scores, y), scores


@fx.export(optimizer=optim.Descent(1e30))
def explode(x: fx.f32["batch", 4], y: fx.i32["batch"]):
    return (model(x) ** 2).sum() + 0.0 * y.sum()
"""


def compile_classes(folder):
    """The folder of the artifact that is trained."""
    from fluxc.compiler import driver

    (folder / "model.py").write_text(MODEL)
    driver.compile_file(folder / "model.py", folder / "classes")
    return folder / "classes"


def classes(n=90):
    """Points around three centres, and which."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, n).astype(np.int32)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    x[np.arange(n), y] += 3
    return x, y


def loader(n=90, batchsize=16, **options):
    return data.DataLoader(classes(n), batchsize, shuffle=True, **options)


def without_seconds(history):
    return [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]


def run(artifact, place):
    """Train, and leave the last weights and the history beside the checkpoints."""
    sys.path.insert(0, str(Path(artifact).parent))
    model = importlib.import_module(Path(artifact).name).Model(seed=1)
    stop = train.early_stopping(lambda m: m["validation_loss"], 9)
    lower = train.reduce_on_plateau(
        model, train.early_stopping(lambda m: m.loss, 1, min_dist=1e-2), name="train_step.lr"
    )
    history = train.fit(
        model.train_step,
        loader(prefetch=1),
        epochs=8,
        metrics={"accuracy": train.accuracy},
        evaluate=train.Evaluation(model.loss, loader(40)),
        callbacks=[stop, lower],
        checkpoint=train.Checkpoint(place, steps=2),
        resume=True,
    )
    model.save(f"{place}.weights")
    Path(f"{place}.json").write_text(json.dumps(without_seconds(history)))


if __name__ == "__main__":
    run(*sys.argv[1:])
