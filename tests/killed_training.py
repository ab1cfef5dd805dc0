"""A training that is killed and started again: `killed_training.py ARTIFACT CHECKPOINTS`.

It has all that keeps a state: shuffled batches, dropout, an optimiser, metrics, callbacks.
"""

import importlib
import json
import sys
from pathlib import Path

import numpy as np

from fluxc import data, train


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
