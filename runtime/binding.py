"""The Python side of a compiled artifact: NumPy arrays in, native code, NumPy arrays out.

This file is the first part of every artifact's `__init__.py`.  It needs Python and NumPy alone.
What follows it there are the artifact's own entries as methods with their signatures.
"""

from __future__ import annotations

import ast
import ctypes
import hashlib
import json
import math
import operator
import os
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path  # noqa: TC003  what follows in an artifact uses it
from typing import Any

import numpy as np

FORMAT = 1  # of manifest.json

_NUMPY = {
    "f64": "<f8", "f32": "<f4", "f16": "<f2", "bf16": "<u2",
    "i64": "<i8", "i32": "<i4", "i16": "<i2", "i8": "i1",
    "u64": "<u8", "u32": "<u4", "u16": "<u2", "u8": "u1", "bool": "?",
}  # fmt: skip
_DTYPE = {name: np.dtype(code) for name, code in _NUMPY.items()}
# C_CONTIGUOUS and ALIGNED: memory that native code can read as it is; with WRITEABLE, write.
_READABLE, _WRITEABLE = 0x101, 0x501
_MOST_PLANS = 512


class ArtifactError(Exception):
    """The artifact or a weights file is missing, altered, truncated, or not what it should be."""


def _message(summary: str, *, expected: str = "", got: str = "", hint: str = "") -> str:
    rows = [("expected", expected), ("got", got), ("hint", hint)]
    return "\n".join([summary, *(f"  {k + ':':<10}{text}" for k, text in rows if text)])


# ---- declared types ----


@dataclass(frozen=True, slots=True)
class Tensor:
    """A declared input, output or parameter.  A size is an integer, or text in symbolic sizes."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class Entry:
    """A compiled function: its declared types.

    symbols:  named sizes, in the order of the C interface.
    training: whether a call changes the model.
    """

    name: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    symbols: tuple[str, ...]
    training: bool
    tree: Any
    solve: tuple[tuple[str, int, int, int, int | str], ...]

    def __str__(self) -> str:
        inputs = ", ".join(f"{t.name}: {t}" for t in self.inputs)
        return f"{self.name}({inputs}) -> {', '.join(map(str, self.outputs))}"


def _tensor(facts: Mapping[str, Any]) -> Tensor:
    return Tensor(facts["name"], facts["dtype"], tuple(facts["shape"]))


def _entry(facts: Mapping[str, Any]) -> Entry:
    return Entry(
        facts["name"],
        tuple(map(_tensor, facts["inputs"])),
        tuple(map(_tensor, facts["outputs"])),
        tuple(s["name"] for s in facts["symbols"]),
        facts["training"],
        facts["output_tree"],
        tuple((s, i, axis, factor, rest) for s, i, axis, factor, rest in facts["solve"]),
    )


_ARITHMETIC: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
}


def _size(size: int | str, known: Mapping[str, int]) -> int:
    """The number that a size is when the symbols have the values `known`."""
    return size if isinstance(size, int) else _evaluate(ast.parse(size, mode="eval").body, known)


def _evaluate(node: ast.expr, known: Mapping[str, int]) -> int:
    match node:
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name):
            return known[name]
        case ast.UnaryOp(op=ast.USub(), operand=x):
            return -_evaluate(x, known)
        case ast.BinOp(left=x, op=op, right=y):
            return _ARITHMETIC[type(op)](_evaluate(x, known), _evaluate(y, known))
        case ast.Call(func=ast.Name(id="max" | "min" as name), args=arguments):
            return (max if name == "max" else min)(_evaluate(a, known) for a in arguments)
    raise ArtifactError(f"manifest.json: {ast.unparse(node)} is not a size")


# ---- arrays ----


def _describe(x: object) -> str:
    if isinstance(x, (np.ndarray, np.generic)):
        return f"{_dtype_name(x.dtype)}[{', '.join(map(str, x.shape))}]"
    return type(x).__name__


def _dtype_name(dtype: np.dtype[Any]) -> str:
    for name, known in _DTYPE.items():
        if dtype == known and name != "bf16":
            return name
    return "bf16" if dtype.name == "bfloat16" else str(dtype)


def _is_dtype(dtype: np.dtype[Any], wanted: str) -> bool:
    """Whether an array of `dtype` holds elements of `wanted`; bf16 also comes from ml_dtypes."""
    return dtype == _DTYPE[wanted] or (wanted == "bf16" and dtype.name == "bfloat16")


def _cast_hint(name: str, wanted: str) -> str:
    name = name if name.isidentifier() else "value"  # of a parameter
    if wanted == "bf16":
        return f"{name}.astype(ml_dtypes.bfloat16), or its bits in numpy.uint16"
    return f"np.asarray({name}, dtype=np.{_DTYPE[wanted].name})"


def _as_array(x: object, where: str, t: Tensor) -> np.ndarray[Any, Any]:
    """Whatever holds an array: NumPy, DLPack, the buffer protocol; a number where rank is 0."""
    if type(x).__module__.startswith("numpy.ma"):
        raise TypeError(
            _message(f"{where}: a masked array", expected=str(t), hint=f"{t.name}.filled(...)")
        )
    if isinstance(x, (np.ndarray, np.generic)):
        return np.asarray(x)
    if not t.shape and isinstance(x, (bool, int, float)):
        return _number(x, where, t)
    try:
        if hasattr(x, "__dlpack__"):
            return np.from_dlpack(x)
        if hasattr(x, "__array__") or hasattr(x, "__array_interface__"):
            return np.asarray(x)
        return np.asarray(memoryview(x))  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError, RuntimeError) as error:
        hint = _cast_hint(t.name, t.dtype)
        summary = f"{where} is not an array in this machine's memory"
        raise TypeError(_message(summary, expected=str(t), got=_describe(x), hint=hint)) from error


def _number(x: float, where: str, t: Tensor) -> np.ndarray[Any, Any]:
    dtype = _DTYPE[t.dtype]
    wanted = {"b": bool, "i": int, "u": int}.get(dtype.kind, (int, float))
    fits = isinstance(x, bool) == (dtype.kind == "b") and isinstance(x, wanted)
    if not fits or t.dtype == "bf16":
        raise TypeError(
            _message(f"{where} has the wrong type", expected=str(t), got=type(x).__name__)
        )
    if dtype.kind in "iu" and not np.iinfo(dtype).min <= x <= np.iinfo(dtype).max:
        raise ValueError(_message(f"{where} is out of range", expected=str(t), got=str(x)))
    with np.errstate(over="ignore"):
        a = np.array(x, dtype)
    if dtype.kind == "f" and math.isfinite(x) and not np.isfinite(a):
        raise ValueError(_message(f"{where} is out of range", expected=str(t), got=str(x)))
    return a


def _check_dtype(a: np.ndarray[Any, Any], where: str, t: Tensor) -> None:
    if not _is_dtype(a.dtype, t.dtype):
        hint = _cast_hint(t.name, t.dtype)
        summary = f"{where} has the wrong dtype"
        raise TypeError(_message(summary, expected=str(t), got=_describe(a), hint=hint))


def _readable(x: object, where: str, t: Tensor) -> np.ndarray[Any, Any]:
    """`x` as an array of exactly t's dtype, contiguous and aligned; copied where it must be."""
    a = x if type(x) is np.ndarray else _as_array(x, where, t)
    _check_dtype(a, where, t)
    return a if a.flags.num & _READABLE == _READABLE else np.require(a, requirements=("C", "A"))


_WORD = ctypes.c_size_t.from_address
_DATA = object.__basicsize__  # PyArrayObject: the object's head, then `char *data`


def _fast_address(a: np.ndarray[Any, Any]) -> int:
    return _WORD(id(a) + _DATA).value


def _plain_address(a: np.ndarray[Any, Any]) -> int:
    return int(a.ctypes.data)


def _choose_address() -> Callable[[np.ndarray[Any, Any]], int]:
    """The quick way to an array's data, where arrays lie as NumPy's headers say."""
    import platform

    probe = np.arange(8, dtype=np.int64)[3:5]
    quick = platform.python_implementation() == "CPython"
    return _fast_address if quick and _fast_address(probe) == probe.ctypes.data else _plain_address


_address = _choose_address()


# ---- the library ----


class _Library:
    """The shared library and manifest of one artifact, checked against its hashes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.facts = self._manifest()
        self.name: str = self.facts["name"]
        self.entries = {e["name"]: _entry(e) for e in self.facts["entries"]}
        self.storages = {
            s["name"]: (Tensor(s["name"], s["dtype"], tuple(s["shape"])), s["kind"])
            for s in self.facts["storages"]
        }
        self.weights = folder / f"{self.name}.safetensors"
        file = f"lib{self.name}.so"
        self.check(file)
        try:
            self.native = ctypes.CDLL(str(folder / file))
        except OSError as error:
            wanted = self.facts["target"]["triple"]
            raise ArtifactError(
                _message(f"{folder / file} does not load: {error}", expected=f"a {wanted} machine")
            ) from error
        self._declare()

    def _manifest(self) -> dict[str, Any]:
        file = self.folder / "manifest.json"
        try:
            facts = json.loads(file.read_text("utf-8"))
        except OSError as error:
            raise ArtifactError(f"{file}: cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise ArtifactError(f"{file}: altered or truncated: {error}") from error
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise ArtifactError(
                _message(
                    f"{file} has another format", expected=str(FORMAT), hint="recompile the model"
                )
            )
        return facts

    def check(self, file: str) -> None:
        """Compare a file of the artifact with its hash in the manifest."""
        path = self.folder / file
        try:
            with path.open("rb") as data:
                found = hashlib.file_digest(data, "sha256").hexdigest()
        except OSError as error:
            raise ArtifactError(f"{path}: cannot be read: {error.strerror}") from error
        if found != self.facts["files"].get(file):
            raise ArtifactError(
                _message(
                    f"{path} is not the file that the compiler wrote",
                    expected=f"sha256 {self.facts['files'].get(file)}",
                    got=f"sha256 {found}",
                    hint="recompile the model",
                )
            )

    def _declare(self) -> None:
        pointer, text, i64, i32 = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int32
        self.open = self.function("open", pointer, text, ctypes.c_uint64, i32)
        self.close = self.function("close", None, pointer)
        self.save = self.function("save", i32, pointer, text)
        self.load = self.function("load", i32, pointer, text)
        self.error = self.function("error", text)
        self.get = self.function("get", pointer, pointer, text)
        self.set = self.function("set", i32, pointer, text, pointer, i64)

    def function(self, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
        try:
            function = self.native[f"{self.name}_{name}"]
        except AttributeError as error:
            raise ArtifactError(f"the library has no function {self.name}_{name}") from error
        function.restype, function.argtypes = result, arguments
        return function

    def entry_function(self, entry: Entry) -> Callable[..., int]:
        arrays = [ctypes.c_void_p] * (len(entry.inputs) + len(entry.outputs))
        sizes = [ctypes.c_int64] * len(entry.symbols)
        return self.function(entry.name, ctypes.c_int32, ctypes.c_void_p, *sizes, *arrays)

    def failure(self, status: int) -> Exception:
        """The exception for an error code of native code, with its message."""
        text = (self.error() or b"").decode("utf-8", "replace")
        if status == 4:
            return MemoryError(text)
        return (ArtifactError if status in (5, 6) else ValueError)(text)


class _Handle:
    """A native model, closed when nothing refers to it or to its memory any more."""

    __slots__ = ("__weakref__", "_close", "address")

    def __init__(self, library: _Library, weights: bytes | None, seed: int, threads: int) -> None:
        self.address = 0
        self._close = library.close
        self.address = library.open(weights, seed, threads) or 0
        if not self.address:
            text = (library.error() or b"").decode("utf-8", "replace")
            raise MemoryError(text) if text.endswith("out of memory") else ArtifactError(text)

    def __del__(self) -> None:
        if self.address:
            self._close(self.address)


class _Memory:
    """Native memory as NumPy sees it; keeps the model that owns it."""

    __slots__ = ("__array_interface__", "handle")

    def __init__(self, handle: _Handle, address: int, t: Tensor, dtype: np.dtype[Any]) -> None:
        self.handle = handle
        self.__array_interface__ = {
            "version": 3,
            "shape": t.shape,
            "typestr": dtype.str,
            "data": (address, True),
        }


# ---- calls ----


class _Plan:
    """What follows from the shapes of a call's inputs: the sizes, and the shapes of its outputs."""

    __slots__ = ("outputs", "symbols")

    def __init__(self, symbols: tuple[int, ...], outputs: tuple[tuple[int, ...], ...]) -> None:
        self.symbols, self.outputs = symbols, outputs


def _plan(entry: Entry, shapes: tuple[tuple[int, ...], ...]) -> _Plan:
    """Check the shapes of the inputs against the declared types.

    Errors  ValueError naming the argument, what was expected and what came.
    """
    for t, shape in zip(entry.inputs, shapes, strict=True):
        if len(shape) != len(t.shape):
            raise _shape_error(entry, t, shape, f"has rank {len(shape)} instead of {len(t.shape)}")
    known: dict[str, int] = {}
    origin: dict[str, str] = {}
    for symbol, i, axis, factor, rest in entry.solve:
        t, size = entry.inputs[i], shapes[i][axis]
        value, remainder = divmod(size - _size(rest, known), factor)
        if remainder or value < 0:
            what = f"has size {size} on axis {axis}, which is not {t.shape[axis]} for any {symbol}"
            raise _shape_error(entry, t, shapes[i], what)
        known[symbol] = value
        origin[symbol] = t.name
    for t, shape in zip(entry.inputs, shapes, strict=True):
        for axis, (declared, size) in enumerate(zip(t.shape, shape, strict=True)):
            wanted = _size(declared, known)
            if size != wanted:
                sizes = ", ".join(f"{s}={v} (from {origin[s]})" for s, v in known.items())
                because = f", with {sizes}" if isinstance(declared, str) else ""
                what = f"has size {size} on axis {axis} instead of {wanted}{because}"
                raise _shape_error(entry, t, shape, what)
    outputs = tuple(tuple(_size(s, known) for s in t.shape) for t in entry.outputs)
    if any(size < 0 for shape in outputs for size in shape):
        raise ValueError(f"{entry.name}: these sizes make an output of negative size: {outputs}")
    return _Plan(tuple(known[s] for s in entry.symbols), outputs)


def _shape_error(entry: Entry, t: Tensor, shape: tuple[int, ...], what: str) -> ValueError:
    got = f"{t.dtype}[{', '.join(map(str, shape))}]"
    return ValueError(_message(f"{entry.name}: argument {t.name} {what}", expected=str(t), got=got))


def _leaves(tree: Any, value: Any, where: str) -> list[Any]:
    """The leaves of `value`, which must have the form of `tree`."""
    if tree == "leaf":
        return [value]
    kind, parts = tree
    if kind == "dict":
        if not isinstance(value, dict) or set(value) != set(parts):
            raise TypeError(f"{where}: out must be a dict with the keys {', '.join(parts)}")
        return [leaf for key, part in parts.items() for leaf in _leaves(part, value[key], where)]
    if not isinstance(value, (tuple, list)) or len(value) != len(parts):
        raise TypeError(f"{where}: out must be a {kind} of {len(parts)} arrays")
    return [leaf for part, v in zip(parts, value, strict=True) for leaf in _leaves(part, v, where)]


def _assemble(tree: Any, leaves: Iterator[Any]) -> Any:
    """`leaves` in the form of `tree`."""
    if tree == "leaf":
        return next(leaves)
    kind, parts = tree
    if kind == "dict":
        return {key: _assemble(part, leaves) for key, part in parts.items()}
    values = [_assemble(part, leaves) for part in parts]
    return tuple(values) if kind == "tuple" else values


def _check_out(entry: Entry, t: Tensor, a: Any, shape: tuple[int, ...]) -> None:
    """Whether results can be written straight into `a`."""
    where = f"{entry.name}: out" if len(entry.outputs) == 1 else f"{entry.name}: out, {t.name},"
    expected = f"{t.dtype}[{', '.join(map(str, shape))}]"
    if not isinstance(a, np.ndarray):
        scalar = isinstance(a, np.generic)
        got = f"numpy.{type(a).__name__}, which cannot change" if scalar else _describe(a)
        hint = f"np.empty((), np.{_DTYPE[t.dtype].name})" if scalar else ""
        raise TypeError(
            _message(f"{where} is not a NumPy array", expected=expected, got=got, hint=hint)
        )
    if not _is_dtype(a.dtype, t.dtype):
        raise TypeError(
            _message(f"{where} has the wrong dtype", expected=expected, got=_describe(a))
        )
    if a.shape != shape:
        raise ValueError(
            _message(f"{where} has the wrong shape", expected=expected, got=_describe(a))
        )
    if not a.flags.writeable:
        raise ValueError(f"{where} is read-only")
    if not (a.flags.c_contiguous and a.flags.aligned):
        raise ValueError(f"{where} is not contiguous in memory, so results cannot be written to it")


def _given(entry: Entry, plan: _Plan, out: Any) -> list[np.ndarray[Any, Any]]:
    """The caller's own arrays for the results."""
    results = [out] if entry.tree == "leaf" else _leaves(entry.tree, out, entry.name)
    for a, t, shape in zip(results, entry.outputs, plan.outputs, strict=True):
        if (
            type(a) is not np.ndarray
            or a.dtype is not _DTYPE[t.dtype]
            or a.shape != shape
            or a.flags.num & _WRITEABLE != _WRITEABLE
        ):
            _check_out(entry, t, a, shape)
    return results


def _returned(entry: Entry, results: list[np.ndarray[Any, Any]]) -> Any:
    """What an entry returns: results of rank 0 as NumPy's scalars, in the entry's own form."""
    if entry.tree == "leaf":
        (result,) = results
        return result if result.ndim else result[()]
    return _assemble(entry.tree, (a if a.ndim else a[()] for a in results))


class _Caller:
    """The function behind `model.<entry>`, for every call: `(out, *inputs) -> outputs`.

    What shapes decide is remembered per tuple of shapes in `plans`.  An artifact's methods go
    straight to `function` with plain arrays of shapes found there, and come here with all others.
    """

    __slots__ = ("entry", "function", "handle", "library", "model", "plans")

    def __init__(self, library: _Library, handle: _Handle, entry: Entry) -> None:
        self.library, self.handle, self.entry = library, handle, entry
        self.function, self.model = library.entry_function(entry), handle.address
        self.plans: dict[tuple[tuple[int, ...], ...], _Plan] = {}

    def plan(self, shapes: tuple[tuple[int, ...], ...]) -> _Plan:
        found = self.plans.get(shapes)
        if found is None:
            found = _plan(self.entry, shapes)
            if len(self.plans) >= _MOST_PLANS:
                self.plans.clear()
            self.plans[shapes] = found
        return found

    def __call__(self, out: Any, *arrays: Any) -> Any:
        entry = self.entry
        kept = [
            _readable(x, f"{entry.name}: argument {t.name}", t)
            for x, t in zip(arrays, entry.inputs, strict=True)
        ]
        plan = self.plan(tuple(x.shape for x in kept))
        if out is None:
            types = zip(plan.outputs, entry.outputs, strict=True)
            results = [np.empty(shape, _DTYPE[t.dtype]) for shape, t in types]
        else:
            results = _given(entry, plan, out)
        status = self.function(
            self.model, *plan.symbols, *map(_address, kept), *map(_address, results)
        )
        if status:
            raise self.failure(status)
        return _returned(entry, results) if out is None else out

    def failure(self, status: int) -> Exception:
        return self.library.failure(status)


# ---- parameters by name ----


class _Storages(MutableMapping[str, np.ndarray[Any, Any]]):
    """Stored tensors by name: read as read-only views of live memory, set by assignment."""

    def __init__(self, library: _Library, handle: _Handle, kind: str) -> None:
        self._library, self._handle, self._kind = library, handle, kind
        self._tensors = {n: t for n, (t, k) in library.storages.items() if k == kind}

    def _find(self, name: str) -> Tensor:
        try:
            return self._tensors[name]
        except (KeyError, TypeError):
            known = ", ".join(self._tensors) or "none"
            raise KeyError(f"no {self._kind} is named {name!r}; there are: {known}") from None

    def __getitem__(self, name: str) -> np.ndarray[Any, Any]:
        return _view(self._library, self._handle, self._find(name))

    def __setitem__(self, name: str, value: Any) -> None:
        t = self._find(name)
        where = f"{self._kind} {name}"
        a = _readable(value, where, t)
        if a.shape != t.shape:
            raise ValueError(
                _message(f"{where} has another shape", expected=str(t), got=_describe(a))
            )
        _set(self._library, self._handle, t, a)

    def __delitem__(self, name: str) -> None:
        raise TypeError(f"a {self._kind} cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return "{" + ", ".join(f"{n!r}: {t}" for n, t in self._tensors.items()) + "}"


def _view(library: _Library, handle: _Handle, t: Tensor) -> np.ndarray[Any, Any]:
    address = library.get(handle.address, t.name.encode())
    dtype = _DTYPE[t.dtype]
    if 0 in t.shape or not address:
        return np.empty([int(s) for s in t.shape], dtype)
    return np.asarray(_Memory(handle, address, t, dtype))


def _set(library: _Library, handle: _Handle, t: Tensor, a: np.ndarray[Any, Any]) -> None:
    status = library.set(handle.address, t.name.encode(), a.ctypes.data, a.size)
    if status:
        raise library.failure(status)


class _Hyperparameters(MutableMapping[str, Any]):
    """Hyper-parameters of the optimisers: `lr`, or `train_step.lr` where two entries have one."""

    def __init__(self, library: _Library, handle: _Handle) -> None:
        self._library, self._handle = library, handle
        self._tensors = {
            n.removeprefix("optimizer."): t
            for n, (t, k) in library.storages.items()
            if k == "hyper"
        }
        short: dict[str, list[str]] = {}
        for name in self._tensors:
            short.setdefault(name.partition(".")[2], []).append(name)
        self._short = short

    def _find(self, name: str) -> Tensor:
        if name in self._tensors:
            return self._tensors[name]
        full = self._short.get(name, [])
        if len(full) == 1:
            return self._tensors[full[0]]
        if full:
            raise KeyError(f"several entries have {name!r}; say which: {', '.join(full)}")
        raise KeyError(
            f"no hyper-parameter is named {name!r}; there are: {', '.join(self) or 'none'}"
        )

    def __getitem__(self, name: str) -> Any:
        value = _view(self._library, self._handle, self._find(name))
        # The shortest decimal that is stored as this number: 0.001, not 0.0010000000474974513.
        return value.copy() if value.ndim else float(str(value[()]))

    def __setitem__(self, name: str, value: Any) -> None:
        t = self._find(name)
        if isinstance(value, (str, bytes)) or isinstance(value, bool) != (t.dtype == "bool"):
            raise TypeError(f"hyper-parameter {name} must be a number, got {value!r}")
        try:
            wide = np.asarray(value, dtype=np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"hyper-parameter {name} must be a number, got {value!r}") from None
        with np.errstate(all="ignore"):  # what does not fit is refused below, or by native code
            a = wide.astype(_DTYPE[t.dtype])
        if a.shape != t.shape:
            raise ValueError(
                _message(
                    f"hyper-parameter {name} has another shape", expected=str(t), got=_describe(a)
                )
            )
        if a.dtype.kind in "iu" and not np.array_equal(a, wide):
            raise ValueError(f"hyper-parameter {name} must be a whole number, got {value!r}")
        _set(self._library, self._handle, t, a)

    def __delitem__(self, name: str) -> None:
        raise TypeError("a hyper-parameter cannot be deleted")

    def __iter__(self) -> Iterator[str]:
        """Short names where they are unique, else the full ones."""
        for short, full in self._short.items():
            yield from [short] if len(full) == 1 else full

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return repr(dict(self))


# ---- models ----


def _integer(value: object, name: str, least: int, most: int) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if not least <= number <= most:
        raise ValueError(f"{name} must lie between {least} and {most}, got {number}")
    return number


def _path(value: object, what: str) -> bytes:
    try:
        path = os.fsencode(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{what} must be a path, got {type(value).__name__}") from None
    if b"\0" in path:
        raise ValueError(f"{what} is a path with a null character")
    return path


class _Model:
    """An opened model: parameters in memory and the functions that use them.

    weights  a safetensors file; by default the parameters that the artifact ships.
    seed     of the random numbers; by default what the weights file holds, or 0.
    threads  0: as many as this process has cores.  Results do not depend on it.
    device   "cpu".
    Threads  may be shared: entries that change nothing run side by side, the others alone.
    Errors   ArtifactError if a file is missing, altered, truncated, or of another model.
    """

    _library: _Library

    def __init__(
        self,
        weights: str | os.PathLike[str] | None = None,
        seed: int | None = None,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        library = self._library
        if device != "cpu":
            raise ArtifactError(f"this artifact was compiled for device 'cpu', not {device!r}")
        if threads is None:
            threads = library.facts["threads"]
        number = 0 if seed is None else _integer(seed, "seed", 0, 2**64 - 1)
        count = _integer(threads, "threads", 0, 1024)
        if weights is None:
            library.check(library.weights.name)
        path = _path(library.weights if weights is None else weights, "weights")
        self._handle = _Handle(library, path, number, count)
        if seed is not None:
            self._seed(number)
        self.parameters = _Storages(library, self._handle, "parameter")
        self.states = _Storages(library, self._handle, "state")
        self.optimizer = _Hyperparameters(library, self._handle)
        for entry in library.entries.values():
            setattr(self, f"_call_{entry.name}", _Caller(library, self._handle, entry))

    def _seed(self, seed: int) -> None:
        """A seed that was asked for wins over the one in a weights file."""
        for t, kind in self._library.storages.values():
            if kind == "seed":
                _set(self._library, self._handle, t, np.array(seed, np.uint64).reshape(t.shape))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write parameters, states, optimiser state, hyper-parameters and random state to a file.

        The file is replaced when it is complete, never half-written.
        Errors  ValueError if a parameter is not finite; ArtifactError if it cannot be written.
        """
        self._check(self._library.save(self._handle.address, _path(path, "path")))

    def load(self, path: str | os.PathLike[str]) -> None:
        """Take the values of a file that `save` wrote, or of one with the parameters alone.

        A file without optimiser state resets it, and keeps hyper-parameters and random state.
        Errors  ArtifactError if the file is not right; the model is then as before.
        """
        self._check(self._library.load(self._handle.address, _path(path, "path")))

    def _check(self, status: int) -> None:
        if status:
            raise self._library.failure(status)

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(
            "a Model cannot be pickled; save its weights and open them in the other process"
        )

    def __repr__(self) -> str:
        count = sum(math.prod(map(int, t.shape)) for t in self.parameters._tensors.values())  # noqa: SLF001
        entries = ", ".join(self._library.entries)
        return f"<{self._library.name}.Model: {count} parameters, entries {entries}>"


class _Default:
    """The one model behind the module-level functions, opened by the first call."""

    def __init__(self, open_model: Callable[[], Any]) -> None:
        self._open, self._lock, self._model = open_model, threading.Lock(), None

    def __call__(self) -> Any:
        if self._model is None:
            with self._lock:
                if self._model is None:
                    self._model = self._open()
        return self._model
