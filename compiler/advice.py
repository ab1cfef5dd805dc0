"""Python's own errors in a model file: one line for each, and a hint where one is known."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType, TracebackType

__all__ = ["describe", "hint_for"]

# What other frameworks call a thing, and its name here.
_ELSEWHERE = {
    "Linear": "Dense", "Sequential": "Chain", "BatchNorm1d": "BatchNorm", "SGD": "Descent",
    "ClipGradNorm": "ClipNorm", "cross_entropy": "logitcrossentropy", "mse_loss": "mse",
    "l1_loss": "mae", "view": "reshape", "permute": "transpose", "cat": "concatenate",
    "dim": "ndim", "float": "astype(fx.f32)", "double": "astype(fx.f64)", "long": "astype(fx.i64)",
    "to": "astype", "concat": "concatenate", "t": "T", "SiLU": "swish",
    "AvgPool1d": "MeanPool", "AvgPool2d": "MeanPool", "AvgPool3d": "MeanPool",
    "AdaptiveAvgPool1d": "AdaptiveMeanPool", "AdaptiveAvgPool2d": "AdaptiveMeanPool",
    "AdaptiveAvgPool3d": "AdaptiveMeanPool", "CrossEntropyLoss": "logitcrossentropy",
    "MSELoss": "mse", "L1Loss": "mae", "BCELoss": "binarycrossentropy", "NLLLoss": "nll_loss",
    "BCEWithLogitsLoss": "logitbinarycrossentropy", "KLDivLoss": "kldivergence",
    "binary_cross_entropy": "binarycrossentropy",
    "binary_cross_entropy_with_logits": "logitbinarycrossentropy",
    "ExponentialLR": "Exp", "CosineAnnealingLR": "CosAnneal", "StepLR": "Step",
    "float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64", "int8": "i8",
    "int16": "i16", "int32": "i32", "int64": "i64", "uint8": "u8", "bool": "bool_",
}  # fmt: skip
_KEYWORDS = {
    "dim": "axis", "dims": "axis", "keepdim": "keepdims", "weight_decay": "lambda_",
    "momentum": "rho", "learning_rate": "lr", "betas": "beta", "p": "p", "max_norm": "omega",
    "reduction": "agg", "padding": "pad", "output_padding": "outpad", "num_heads": "nheads",
    "dropout": "dropout_prob", "scale_factor": "scale", "kernel": "k",
}  # fmt: skip
# What to write instead of a keyword that has no counterpart.
_SIZES = "sizes come first and have no names: nn.Dense(3, 4), nn.Conv((3, 3), 3, 4), nn.LSTM(3, 4)"
_INSTEAD = {
    "num_layers": "nn.Stacked(nn.LSTM(3, 8), nn.LSTM(8, 8))",
    "bidirectional": "nn.Bidirectional(nn.LSTM(3, 4))",
    "batch_first": "leave it out: sequences are [batch, time, features]",
    "padding_mode": "a layer before it: nn.ReflectionPad(1), nn.CircularPad(1), ...",
    "momentum": "optim.Momentum(0.01, 0.9)",
    "nesterov": "optim.Nesterov(0.01, 0.9)",
    "weight_decay": "optim.AdamW(1e-3, lambda_=0.01), or optim.Chain(optim.WeightDecay(0.01), ...)",
    **dict.fromkeys(
        ["in_features", "out_features", "in_channels", "out_channels", "input_size", "hidden_size",
         "embed_dim", "num_embeddings", "embedding_dim", "num_features", "kernel_size"], _SIZES,
    ),
}  # fmt: skip
# What to write instead of a method of a tensor.
_METHODS = {
    "backward": "@fx.export(optimizer=...) makes a training step; fx.grad(f) is a gradient",
    "detach": "fx.stop_gradient(x)",
    "item": "a tensor has no value while it is traced; an entry returns it",
    "numpy": "a tensor has no value while it is traced; an entry returns it",
    "cuda": "fluxc compile --target cuda:sm_90",
}


def describe(error: BaseException) -> str:
    """The error's kind and message on one line."""
    text = " ".join(str(error).split())
    text = text.replace("'Dim'", "'size'").replace("not Dim", "not a size")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# A part of the message, and what would mend it.
_HINTS = {
    "'str' object is not callable": "a function instead of its name: fx.relu, fx.sum",
    "ufunc": "fx has NumPy's functions for tensors: fx.exp(x), fx.sum(x, axis=0), x.mean()",
    "Dim": "a size may be known only when the program runs; fx.array(x.shape[0]) is a tensor of it",
    "Tensor.__format__": "a tensor has no value while it is traced; print what an entry returns",
    "object is not callable": "a module computes in its __call__ method",
    "relative import": "files beside the model file are imported by their names",
    "maximum recursion depth": "an entry or a module calls itself",
}


def hint_for(error: BaseException) -> str:
    """Code that would mend it, or nothing."""
    text = str(error)
    if _passes_numpy(error.__traceback__):
        return _HINTS["ufunc"]
    if isinstance(error, NameError) and error.name:
        return _nearest(error.name, _names_at(error.__traceback__))
    if isinstance(error, AttributeError) and error.name:
        return _of_attribute(error.obj, error.name)
    wrong = re.match(r"(\w+)(?:\.\w+)?\(\) got an unexpected keyword argument '(\w+)'", text)
    if wrong:
        return _of_keyword(*wrong.groups())
    return next((hint for part, hint in _HINTS.items() if part in text), "")


def _passes_numpy(step: TracebackType | None) -> bool:
    while step is not None:
        if step.tb_frame.f_globals.get("__name__", "").partition(".")[0] == "numpy":
            return True
        step = step.tb_next
    return False


def _names_at(step: TracebackType | None) -> list[str]:
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return [*step.tb_frame.f_locals, *step.tb_frame.f_globals] if step is not None else []


def _of_attribute(holder: Any, name: str) -> str:
    known = [n for n in dir(holder) if not n.startswith("_")]
    elsewhere = _ELSEWHERE.get(name, name.lower())
    if elsewhere.partition("(")[0] in known:
        return f"here it is {elsewhere}"
    if type(holder).__name__ == "Tensor":
        own = f"fx.{name}(x)" if callable(getattr(_language(), name, None)) else ""
        return own or _METHODS.get(name) or _nearest(name, known)
    if inspect.ismodule(holder) and callable(getattr(_language(), elsewhere, None)):
        return f"it is a function: fx.{elsewhere}"
    return _nearest(name, known)


def _language() -> ModuleType | None:
    """The language, which runs wherever a model file does; the compiler does not import it."""
    return sys.modules.get("fluxc")


def _of_keyword(function: str, keyword: str) -> str:
    """The keyword of one of the language's functions that was meant, or what is done instead."""
    places = [_language(), *(getattr(_language(), n, None) for n in ("nn", "optim", "losses"))]
    found = next((getattr(p, function) for p in places if hasattr(p, function)), None)
    known = [] if found is None else [*inspect.signature(found).parameters]
    elsewhere = _KEYWORDS.get(keyword, "")
    if elsewhere in known or (found is None and elsewhere and keyword not in _INSTEAD):
        return f"did you mean {elsewhere}?"
    return _INSTEAD.get(keyword) or _nearest(keyword, known)


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.7)
    return f"did you mean {close[0]}?" if close else ""
