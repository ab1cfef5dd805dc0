"""Compiling inside a Python process: `fx.jit` for functions, `fx.compile` for model files."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import ModelFileError, TraceError
from fluxc.export import ExportedFunction, trace_exports
from fluxc.types import TensorSpec, as_dtype

if TYPE_CHECKING:
    from collections.abc import Callable
    from tempfile import TemporaryDirectory

    from fluxc.compiler.ir.entry import ModelSpec

__all__ = ["compile", "jit"]


def jit(f: Callable[..., Any] | None = None, *, threads: int = 1) -> Any:
    """A function of NumPy arrays that runs f as native code.

    It is compiled at the first call with arrays of these dtypes and shapes, and kept.
    Python's numbers become f32, i32 or bool scalars.  Modules that f uses have their first values.
    threads  how many it may use.
    """
    if f is None:
        return functools.partial(jit, threads=threads)
    return Jitted(f.f if isinstance(f, ExportedFunction) else f, threads)


class Jitted:
    """See `jit`."""

    def __init__(self, f: Callable[..., Any], threads: int) -> None:
        if not callable(f):
            raise TraceError(f"fx.jit takes a function or a module, got {f!r}")
        if inspect.isfunction(f):
            functools.update_wrapper(self, f)
        self.f, self.threads = f, threads
        self.compiled: dict[Any, Any] = {}

    def __call__(self, *args: Any) -> Any:
        arrays = [_array(a) for a in args]
        key = tuple((a.dtype, a.shape) for a in arrays)
        if key not in self.compiled:
            self.compiled[key] = self._compile(arrays)
        return self.compiled[key](*arrays)

    def _compile(self, arrays: list[np.ndarray]) -> Callable[..., Any]:
        specs = [TensorSpec(as_dtype(a.dtype), a.shape) for a in arrays]
        own = getattr(self.f, "__name__", "")
        name = own if own.isidentifier() else "function"
        entry = _Typed(self.f, name, specs)
        spec = trace_exports([entry], _namespace(self.f))
        model = build(spec, "native", name="jitted", threads=self.threads).Model(
            seed=0, threads=self.threads
        )
        compiled: Callable[..., Any] = getattr(model, name)
        return compiled


class _Typed(ExportedFunction):
    """A function whose types come from arguments, not from annotations."""

    def __init__(self, f: Callable[..., Any], name: str, specs: list[TensorSpec]) -> None:
        super().__init__(f, name=name)
        self.specs = specs

    def inputs(self) -> tuple[list[str], list[TensorSpec]]:
        return [f"x{i}" for i in range(len(self.specs))], self.specs


def _array(a: Any) -> np.ndarray:
    if isinstance(a, bool | int | float):
        return np.asarray(a, as_dtype(type(a)).numpy)
    return np.asarray(a)


def _namespace(f: Callable[..., Any]) -> dict[str, Any]:
    """What f can name: the variables around it, then its module's."""
    if not inspect.isfunction(f):
        return {"model": f}
    found = inspect.getclosurevars(f)
    return {**found.nonlocals, **found.globals, **f.__globals__}


def build(spec: ModelSpec, target: str, **options: Any) -> ModuleType:
    """Compile traced entries into a folder that lives as long as the process, and import it."""
    from fluxc.compiler.driver import compile_spec, load_package

    folder = Path(_scratch().name) / f"{len(list(Path(_scratch().name).iterdir()))}"
    folder.mkdir()
    name = options.get("name") or "model"
    compiled = compile_spec(spec, folder / name, target=target, **options)
    return load_package(compiled.directory)


@functools.cache
def _scratch() -> TemporaryDirectory[str]:
    import tempfile

    return tempfile.TemporaryDirectory(prefix="fluxc-")


def compile(
    model: str | Path | ModuleType | dict[str, Any],
    target: str = "native",
    *,
    output: str | Path | None = None,
    **options: Any,
) -> ModuleType:
    """Compile a model file and import what came of it, as importing the artifact would.

    model    a path, a module, or a namespace such as `globals()`.
    output   the artifact's folder; one that lives as long as the process by default.
    options  as `fluxc compile` has them: cpu, weights, entries, threads, name.
    Errors   FluxcError and its kin.
    """
    from fluxc.compiler.driver import compile_spec, load_model_file, load_package

    spec = load_model_file(model) if isinstance(model, str | Path) else _spec_of(model)
    if output is None:
        return build(spec, target, **options)
    return load_package(compile_spec(spec, output, target=target, **options).directory)


def _spec_of(model: ModuleType | dict[str, Any]) -> ModelSpec:
    namespace = vars(model) if isinstance(model, ModuleType) else model
    exports = [v for v in namespace.values() if isinstance(v, ExportedFunction)]
    if not exports:
        raise ModelFileError("nothing is exported", expected="a function under @fx.export")
    return exports[0].trace_model(namespace)
