"""Compiling inside a Python process: `fx.jit` for functions, `fx.compile` for model files."""

from __future__ import annotations

import functools
import inspect
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fluxc.compiler.errors import DTypeError, ModelFileError, TraceError
from fluxc.export import ExportedFunction, trace_exports
from fluxc.tensor import Operators
from fluxc.trace import user_loc
from fluxc.types import TensorSpec, as_dtype

if TYPE_CHECKING:
    from collections.abc import Callable
    from tempfile import TemporaryDirectory

    from fluxc.compiler.ir.entry import ModelSpec

__all__ = ["Typed", "compile", "jit"]


def jit(f: Callable[..., Any] | None = None, *, threads: int = 1) -> Any:
    """A function of NumPy arrays that runs f as native code.

    It is compiled at the first call with arrays of these dtypes and shapes, and kept.
    Python's numbers become f32, i32 or bool scalars.  Modules that f uses have their first values.
    Called on tensors, inside an entry, it is f itself.
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

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if any(isinstance(a, Operators) for a in (*args, *kwargs.values())):
            return self.f(*args, **kwargs)
        if kwargs:
            bound = inspect.signature(self.f).bind(*args, **kwargs)
            bound.apply_defaults()
            args = (*bound.args, *bound.kwargs.values())
        arrays = [_array(i, a) for i, a in enumerate(args)]
        key = tuple((a.dtype, a.shape) for a in arrays)
        if key not in self.compiled:
            self.compiled[key] = self._compile(arrays)
        return self.compiled[key](*arrays)

    def _compile(self, arrays: list[np.ndarray]) -> Callable[..., Any]:
        from fluxc.compiler.artifact.names import TAKEN

        specs = [TensorSpec(as_dtype(a.dtype), a.shape) for a in arrays]
        own = getattr(self.f, "__name__", "")
        name = own if own.isidentifier() and own not in TAKEN and own[0] != "_" else "function"
        entry = Typed(self.f, name, specs)
        spec = trace_exports([entry], _namespace(self.f), anywhere=True)
        model = build(spec, "native", name="jitted", threads=self.threads).Model(
            seed=0, threads=self.threads
        )
        compiled: Callable[..., Any] = getattr(model, name)
        return compiled


class Typed(ExportedFunction):
    """A function whose types come from arguments, not from annotations."""

    def __init__(self, f: Callable[..., Any], name: str, specs: list[TensorSpec]) -> None:
        super().__init__(f, name=name)
        self.specs = specs

    def inputs(self) -> tuple[list[str], list[TensorSpec]]:
        return [f"x{i}" for i in range(len(self.specs))], self.specs


def _array(position: int, a: Any) -> np.ndarray:
    if isinstance(a, bool | int | float):
        return np.asarray(a, as_dtype(type(a)).numpy)
    array = np.asarray(a)
    if array.dtype.kind not in "fiub":
        raise DTypeError(
            f"fx.jit: argument {position} is not an array of numbers",
            loc=user_loc(),
            got=type(a).__name__,
            expected="arrays and numbers; modules are used by name",
        )
    return array


def _namespace(f: Callable[..., Any], inside: tuple[Any, ...] = ()) -> dict[str, Any]:
    """What f, and the functions around it, can name: variables nearby, then their modules'."""
    if inspect.ismethod(f):
        return {"model": f.__self__}
    if not inspect.isfunction(f):
        return {"model": f}
    found = inspect.getclosurevars(f)
    called: dict[str, Any] = {}
    for other in found.nonlocals.values():
        inner = getattr(other, "f", other)  # of a jitted or an exported function
        if inspect.isfunction(inner) and inner not in (f, *inside):
            called |= _namespace(inner, (f, *inside))
    return {**called, **found.nonlocals, **found.globals, **f.__globals__}


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
    options  as `fluxc compile` has them: cpu, weights, entries, threads, seed (of the initial
             parameters), name.
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
