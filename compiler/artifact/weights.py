"""Weights of an artifact: initial values of its storages, and safetensors files in and out.

A safetensors file is eight bytes with the length of the header, the header, which is a JSON object,
and the data.  What a file says is checked before it is believed.
"""

from __future__ import annotations

import hashlib
import json
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import FluxcError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from fluxc.compiler.ir.entry import ModelSpec, Storage
    from fluxc.compiler.ir.types import TensorType

__all__ = ["initial_value", "read_weights", "write_weights"]

MOST_HEADER_BYTES = 100 << 20
FILE_DTYPES = {
    "f64": "F64", "f32": "F32", "f16": "F16", "bf16": "BF16", "i64": "I64", "i32": "I32",
    "i16": "I16", "i8": "I8", "u64": "U64", "u32": "U32", "u16": "U16", "u8": "U8", "bool": "BOOL",
}  # fmt: skip


def initial_value(storage: Storage, seed: int) -> np.ndarray[Any, Any]:
    """What a storage holds at first, in its storage format.

    Each storage has a generator of its own, from its name and the seed: adding a layer does not
    change the others' initial values.
    """
    if not callable(storage.init):
        value: Any = np.full(_shape(storage.type), storage.init)
    else:
        name = storage.source or storage.name
        key = hashlib.sha256(f"{seed}:{name}".encode()).digest()[:16]
        value = storage.init(np.random.default_rng(int.from_bytes(key, "little")))
    return _stored(storage, np.asarray(value))


def _shape(type: TensorType) -> tuple[int, ...]:
    assert all(isinstance(s, int) for s in type.shape), f"a storage of symbolic size: {type}"
    return tuple(s for s in type.shape if isinstance(s, int))


def _stored(storage: Storage, value: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """`value` in the storage's dtype and shape."""
    dtype = storage.type.dtype
    if value.shape != _shape(storage.type):
        raise FluxcError(
            f"the initialiser of {storage.name} returned another shape",
            expected=str(storage.type),
            got=str(list(value.shape)),
        )
    if dtype.is_float and storage.kind == "parameter" and not np.all(np.isfinite(value)):
        raise FluxcError(f"the initialiser of {storage.name} returned a value that is not finite")
    if dtype.name == "bf16" and value.dtype != np.uint16:
        # Round to nearest, ties to even, on the bits of an f32.
        bits = np.ascontiguousarray(value, np.float32).view(np.uint32)
        nan = np.isnan(value)
        rounded = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
        value = np.where(nan, bits >> 16 | 0x40, rounded).astype(np.uint16)
    return np.ascontiguousarray(value, dtype.numpy).reshape(value.shape)


def write_weights(
    file: BinaryIO,
    name: str,
    storages: Iterable[Storage],
    value: Callable[[Storage], np.ndarray[Any, Any]],
) -> str:
    """Write storages to a safetensors file, one at a time; returns the sha256 of what it wrote."""
    # Wide elements first, so that every tensor is aligned in the file; else the declared order.
    ordered = sorted(storages, key=lambda s: -s.type.dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": "fluxc", "model": name}}
    at = 0
    for s in ordered:
        size = int(np.prod(_shape(s.type), dtype=object)) * s.type.dtype.itemsize
        header[s.name] = {
            "dtype": FILE_DTYPES[s.type.dtype.name],
            "shape": list(s.type.shape),
            "data_offsets": [at, at + size],
        }
        at += size
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    for part in _parts(text, ordered, value):
        file.write(part)
        digest.update(part)
    return digest.hexdigest()


def _parts(
    header: bytes, storages: list[Storage], value: Callable[[Storage], np.ndarray[Any, Any]]
) -> Iterator[bytes]:
    yield struct.pack("<Q", len(header))
    yield header
    for s in storages:
        yield value(s).tobytes()


# ---- reading ----


class _NotWeightsError(Exception):
    """What is wrong with a weights file."""


def read_weights(path: Path, spec: ModelSpec) -> dict[str, np.ndarray[Any, Any]]:
    """Read the values of the storages that an artifact ships, by name.

    State of training in the file is passed over, but for averages that an entry computes with.
    Errors  FluxcError that names the file and what is wrong with it.
    """
    try:
        with path.open("rb") as file:
            return _read(file, spec)
    except OSError as error:
        raise FluxcError(f"{path}: cannot be read: {error.strerror}") from error
    except _NotWeightsError as error:
        raise FluxcError(f"{path}: {error}") from error


def _read(file: BinaryIO, spec: ModelSpec) -> dict[str, np.ndarray[Any, Any]]:
    size = file.seek(0, 2)
    file.seek(0)
    start = file.read(8)
    if len(start) < 8:
        raise _NotWeightsError("too short for a safetensors file")
    (length,) = struct.unpack("<Q", start)
    if length > min(size - 8, MOST_HEADER_BYTES):
        raise _NotWeightsError("it is truncated, or not a safetensors file")
    tensors = _header(file.read(length))
    _check_layout(tensors, size - 8 - length)
    wanted = {s.name: s for s in spec.storages if s.in_file}
    averages = _averages(spec)
    if not averages.keys().isdisjoint(tensors):
        wanted |= averages
    _check_names(set(tensors), set(wanted), {s.name for s in spec.storages})
    return {
        name: _tensor(file, 8 + length, tensors[name], storage) for name, storage in wanted.items()
    }


def _averages(spec: ModelSpec) -> dict[str, Storage]:
    """What an optimiser keeps and an entry reads without changing it, and all of the same owner."""
    kept = {s.name: s for s in spec.storages if s.kind == "optimizer"}
    read = {n for e in spec.entries for n in e.storages if n in kept and n not in e.updates}
    owners = {_owner(name) for name in read}
    return {name: s for name, s in kept.items() if _owner(name) in owners}


def _owner(name: str) -> str:
    """`ema` of `optimizer.ema.apart.layers.0.weight`."""
    return name.split(".")[1]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of the header; JSON lets a name occur twice, weights do not."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _NotWeightsError("the header has one name twice")
    return found


def _header(text: bytes) -> dict[str, dict[str, Any]]:
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _NotWeightsError(
            f"the header is not the JSON of a safetensors file: {error}"
        ) from error
    if not isinstance(header, dict):
        raise _NotWeightsError("the header is not the JSON of a safetensors file")
    header.pop("__metadata__", None)
    for name, tensor in header.items():
        if not isinstance(tensor, dict) or set(tensor) != {"dtype", "shape", "data_offsets"}:
            raise _NotWeightsError(f"{name} lacks its dtype, shape or offsets")
        numbers = (tensor["shape"], tensor["data_offsets"])
        if not all(isinstance(n, list) and all(map(_is_count, n)) for n in numbers):
            raise _NotWeightsError(f"{name}: a size or an offset is not a whole number")
        if len(tensor["data_offsets"]) != 2:
            raise _NotWeightsError(f"{name} lacks its offsets")
    return header


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _check_layout(tensors: dict[str, dict[str, Any]], size: int) -> None:
    at = 0
    for begin, end in sorted(tuple(t["data_offsets"]) for t in tensors.values()):
        if end < begin or end > size:
            raise _NotWeightsError("it is truncated, or a tensor lies outside of it")
        if begin != at:
            raise _NotWeightsError("two tensors overlap, or bytes lie between them")
        at = end
    if at != size:
        raise _NotWeightsError("bytes follow the last tensor")


def _check_names(got: set[str], wanted: set[str], known: set[str]) -> None:
    missing = sorted(wanted - got)
    # Another artifact's state of training belongs to the same parameters.
    surplus = sorted(n for n in got - known if not n.startswith(("optimizer.", "random.")))
    complaints = [f"it lacks {', '.join(missing)}"] if missing else []
    complaints += [f"it has, unexpectedly, {', '.join(surplus)}"] if surplus else []
    if complaints:
        raise _NotWeightsError("; ".join(complaints))


def _tensor(
    file: BinaryIO, start: int, tensor: dict[str, Any], storage: Storage
) -> np.ndarray[Any, Any]:
    type = storage.type
    if tensor["dtype"] != FILE_DTYPES[type.dtype.name] or tuple(tensor["shape"]) != type.shape:
        got = f"{str(tensor['dtype']).lower()}[{', '.join(map(str, tensor['shape']))}]"
        raise _NotWeightsError(f"{storage.name} should be {type}, got {got}")
    begin, end = tensor["data_offsets"]
    size = int(np.prod(_shape(type), dtype=object)) * type.dtype.itemsize
    if end - begin != size:
        raise _NotWeightsError(
            f"{storage.name} takes {size} bytes, the file gives it {end - begin}"
        )
    file.seek(start + begin)
    value = np.frombuffer(file.read(size), type.dtype.numpy).reshape(_shape(type))
    if storage.kind == "parameter" and not _all_finite(value, type):
        raise _NotWeightsError(f"{storage.name} has a value that is not a finite number")
    if type.dtype.kind == "b" and np.any(value.view(np.uint8) > 1):
        raise _NotWeightsError(f"{storage.name} has a value that is neither 0 nor 1")
    return value


def _all_finite(value: np.ndarray[Any, Any], type: TensorType) -> bool:
    if type.dtype.name == "bf16":
        return bool(np.all(value & 0x7F80 != 0x7F80))
    return not type.dtype.is_float or bool(np.all(np.isfinite(value)))
