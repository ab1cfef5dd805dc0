"""The Python module of an artifact: the runtime's binding, then its entries with signatures."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluxc.compiler.ir.entry import Entry, ModelSpec
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
        return self._run_{name}(out{passed})
'''

FUNCTION = '''

def {name}({inputs}*, out=None):
    """{doc}"""
    return _default().{name}({call}out=out)
'''


def module_text(
    name: str,
    spec: ModelSpec,
    programs: Iterable[Program],
    triple: str,
    cpu: str,
    version: str,
) -> str:
    """The text of an artifact's `__init__.py`."""
    binding = (files("fluxc.runtime") / "binding.py").read_text("utf-8")
    _, rest = binding.split('"""\n', 1)  # the artifact has a docstring of its own
    pairs = list(zip(spec.entries, programs, strict=True))
    names = ["Model", "ArtifactError", "entries", *(e.name for e in spec.entries)]
    return MODULE.format(
        name=name,
        version=version,
        triple=triple,
        cpu=cpu,
        summary="\n".join(_signature(e, p) for e, p in pairs),
        binding=rest.strip(),
        exported=", ".join(f'"{n}"' for n in names),
        methods="".join(_text(METHOD, e, p) for e, p in pairs),
        functions="".join(_text(FUNCTION, e, p) for e, p in pairs),
    )


def _signature(entry: Entry, program: Program) -> str:
    inputs = zip(entry.inputs, program.inputs, strict=True)
    arguments = ", ".join(f"{name}: {type}" for name, type in inputs)
    return f"{entry.name}({arguments}) -> {_returned(entry, program)}"


def _returned(entry: Entry, program: Program) -> str:
    """The output types in the form that the entry returns them."""
    leaves = iter(program.outputs)

    def text(tree: Any) -> str:
        match tree:
            case "leaf":
                return str(next(leaves))
            case ("dict", dict(parts)):
                return "{" + ", ".join(f"{key}: {text(part)}" for key, part in parts.items()) + "}"
            case (kind, parts):
                inner = ", ".join(map(text, parts))
                return f"[{inner}]" if kind == "list" else f"({inner})"
        raise AssertionError(f"not an output tree: {tree!r}")

    return text(entry.output_tree)


def _text(template: str, entry: Entry, program: Program) -> str:
    effect = "\n\n        Changes the model: runs alone." if program.updates else ""
    effect = effect if template is METHOD else effect.replace("        ", "    ")
    doc = _signature(entry, program).replace("\\", "\\\\").replace('"', "'")
    end = "\n        " if effect and template is METHOD else "\n    " if effect else ""
    return template.format(
        name=entry.name,
        doc=f"{doc}{effect}{end}",
        inputs="".join(f"{n}, " for n in entry.inputs),
        passed="".join(f", {n}" for n in entry.inputs),
        call="".join(f"{n}, " for n in entry.inputs),
    )
