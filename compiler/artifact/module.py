"""The Python module of an artifact: the runtime's binding, then its entries with signatures."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fluxc.compiler.ir.entry import Entry, ModelSpec
    from fluxc.compiler.ir.types import TensorType
    from fluxc.compiler.kernels.program import Program

__all__ = ["module_text"]

MODULE = '''\
"""{name}: compiled by fluxc {version} for {triple} ({cpu}).

{summary}
"""

{binding}

# ---- {name} ----

__all__ = [{exported}]

_library = _Library(Path(__file__).resolve().parent)
_type, _array, _empty = type, np.ndarray, np.empty  # names that no argument has
{dtypes}
entries = _library.entries


class Model(_Model):
    __doc__ = _Model.__doc__
    _library = _library
{methods}

_default = _Default(Model)
{functions}'''

METHOD = '''
    def {name}(self, {inputs}*, out=None):
        """{doc}"""
        _call = self._call_{name}
        if out is None{plain}:
            _plan_ = _call.plans.get(({shapes}))
            if _plan_ is not None:
                {results} = {made}
                _status = _call.function(_call.model, *_plan_.symbols{addresses})
                if _status:
                    raise _call.failure(_status)
                return {returned}
        return _call(out{passed})
'''

FUNCTION = '''

def {name}({inputs}*, out=None):
    """{doc}"""
    return _default().{name}({call}out=out)
'''


def module_text(
    name: str,
    spec: ModelSpec,
    programs: Sequence[Program],
    triple: str,
    cpu: str,
    version: str,
) -> str:
    """The text of an artifact's `__init__.py`."""
    binding = (files("fluxc.runtime") / "binding.py").read_text("utf-8")
    _, rest = binding.split('"""\n', 1)  # the artifact has a docstring of its own
    pairs = list(zip(spec.entries, programs, strict=True))
    dtypes = sorted({str(t.dtype) for p in programs for t in (*p.inputs, *p.outputs)})
    names = ["Model", "ArtifactError", "entries", *(e.name for e in spec.entries)]
    return MODULE.format(
        name=name,
        version=version,
        triple=triple,
        cpu=cpu,
        summary="\n".join(_signature(e, p) for e, p in pairs),
        binding=rest.strip(),
        dtypes="\n".join(f'_{d} = _DTYPE["{d}"]' for d in dtypes),
        exported=", ".join(f'"{n}"' for n in names),
        methods="".join(_text(METHOD, e, p) for e, p in pairs),
        functions="".join(_text(FUNCTION, e, p) for e, p in pairs),
    )


def _signature(entry: Entry, program: Program) -> str:
    inputs = zip(entry.inputs, program.inputs, strict=True)
    arguments = ", ".join(f"{name}: {type}" for name, type in inputs)
    returned = _in_form(entry.output_tree, map(str, program.outputs), quote=False)
    return f"{entry.name}({arguments}) -> {returned}"


def _text(template: str, entry: Entry, program: Program) -> str:
    effect = "\n\n        Changes the model: runs alone." if program.updates else ""
    effect = effect if template is METHOD else effect.replace("        ", "    ")
    doc = _signature(entry, program).replace("\\", "\\\\").replace('"', "'")
    end = "\n        " if effect and template is METHOD else "\n    " if effect else ""
    results = [f"_result{i}" for i in range(len(program.outputs))]
    return template.format(
        name=entry.name,
        doc=f"{doc}{effect}{end}",
        inputs="".join(f"{n}, " for n in entry.inputs),
        passed="".join(f", {n}" for n in entry.inputs),
        call="".join(f"{n}, " for n in entry.inputs),
        plain="".join(map(_is_plain, entry.inputs, program.inputs)),
        shapes="".join(f"{n}.shape, " for n in entry.inputs).strip(),
        results=", ".join(results),
        made=", ".join(
            f"_empty(_plan_.outputs[{i}], _{t.dtype})" for i, t in enumerate(program.outputs)
        ),
        addresses="".join(f", _address({n})" for n in (*entry.inputs, *results)),
        returned=_returned_code(entry, program),
    )


def _is_plain(name: str, type: TensorType) -> str:
    """The test that native code can read an argument as it is."""
    return (
        f" and _type({name}) is _array and {name}.dtype is _{type.dtype}"
        f" and {name}.flags.num & _READABLE == _READABLE"
    )


def _returned_code(entry: Entry, program: Program) -> str:
    """The expression that returns the results in the entry's form; rank 0 as NumPy's scalars."""
    leaves = (f"_result{i}{'' if t.rank else '[()]'}" for i, t in enumerate(program.outputs))
    return _in_form(entry.output_tree, leaves, quote=True)


def _in_form(tree: Any, leaves: Iterator[str], *, quote: bool) -> str:
    """`leaves` as Python writes a value of the form of `tree`; keys of dicts quoted, or not."""
    match tree:
        case "leaf":
            return next(leaves)
        case ("dict", dict(parts)):
            rows = [
                f"{key!r}: {_in_form(part, leaves, quote=quote)}"
                if quote
                else f"{key}: {_in_form(part, leaves, quote=quote)}"
                for key, part in parts.items()
            ]
            return "{" + ", ".join(rows) + "}"
        case (kind, parts):
            inner = ", ".join(_in_form(part, leaves, quote=quote) for part in parts)
            if kind == "list":
                return f"[{inner}]"
            return f"({inner},)" if quote and len(parts) == 1 else f"({inner})"
    raise AssertionError(f"not an output tree: {tree!r}")
