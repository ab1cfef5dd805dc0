"""Training over compiled steps: `fit`, metrics, callbacks, checkpoints, history.

Plain Python and NumPy around `model.train_step`; nothing here is compiled.
"""

from fluxc.train.callbacks import Moment, every, reduce_on_plateau, tensorboard
from fluxc.train.checkpoint import Checkpoint
from fluxc.train.evaluation import Evaluation, evaluate
from fluxc.train.fit import NonFiniteLoss, fit
from fluxc.train.history import History
from fluxc.train.metrics import accuracy, binary_accuracy, mean, mean_of
from fluxc.train.watch import early_stopping, patience, plateau, throttle

__all__ = [
    "Checkpoint",
    "Evaluation",
    "History",
    "Moment",
    "NonFiniteLoss",
    "accuracy",
    "binary_accuracy",
    "early_stopping",
    "evaluate",
    "every",
    "fit",
    "mean",
    "mean_of",
    "patience",
    "plateau",
    "reduce_on_plateau",
    "tensorboard",
    "throttle",
]
