"""Kernels and programs as text.

A kernel's text is canonical: buffers, axes and locals are numbered in the order in which they
appear, so two kernels with equal text compute the same thing and one emitted function serves both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fluxc.compiler.ir.dims import Symbol
from fluxc.compiler.kernels.kernel import (
    Apply,
    Const,
    Contract,
    Extent,
    Index,
    Load,
    Local,
    Nest,
    Pass,
    Sort,
    kernel_axes,
    kernel_symbols,
    operands,
    walk,
)
from fluxc.compiler.kernels.program import (
    ArenaAt,
    Choice,
    ConstantAt,
    InputAt,
    Launch,
    Loop,
    OutputAt,
    PartAt,
    PreparedAt,
    StorageAt,
    While,
)
from fluxc.compiler.kernels.schedule import (
    BlockSchedule,
    ContractSchedule,
    NestSchedule,
    TileSchedule,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fluxc.compiler.kernels.kernel import Axis, Buffer, Expr, Kernel, Store
    from fluxc.compiler.kernels.program import Place, Program, Step
    from fluxc.compiler.kernels.schedule import Schedule

__all__ = ["print_kernel", "print_program"]

_DEEPEST = 6  # an expression nested deeper is cut in named parts
_ACCUMULATES = {
    "": "=", "set": ":=", "add": "+=", "mul": "*=", "maximum": "max=", "minimum": "min=",
}  # fmt: skip
_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "floor_div": "//", "mod": "%",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "and": "&", "or": "|",
}  # fmt: skip


def print_kernel(kernel: Kernel, schedule: Schedule | None = None) -> str:
    """The canonical text of a kernel, with its schedule where one is given."""
    return "\n".join(_KernelPrinter(kernel).lines(schedule))


class _KernelPrinter:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.buffers = {b: f"b{i}" for i, b in enumerate(kernel.buffers)}
        self.axes = {a: f"i{i}" for i, a in enumerate(kernel_axes(kernel))}
        self.locals: dict[str, str] = {}

    def lines(self, schedule: Schedule | None) -> list[str]:
        kernel = self.kernel
        kind = type(kernel).__name__.lower()
        arguments = ", ".join(self._buffer(b) for b in kernel.buffers)
        lines = [f"{kind} {kernel.name}({arguments})"]
        symbols = kernel_symbols(kernel)
        if symbols:
            lines.append(f"  sizes {', '.join(map(_range, symbols))}")
        if schedule is not None:
            lines.append(f"  {self._schedule(schedule)}")
        if isinstance(kernel, Sort):
            return [
                *lines,
                f"  rows {self._axes((kernel.row,))}, of {self._axes((kernel.length,))}",
            ]
        lines += self._nest(kernel) if isinstance(kernel, Nest) else self._contract(kernel)
        return lines

    def _buffer(self, b: Buffer) -> str:
        return f"{self.buffers[b]}: {b.dtype}[{', '.join(map(str, b.shape))}]"

    def _schedule(self, s: Schedule) -> str:
        if isinstance(s, NestSchedule):
            vector = "scalar" if s.vector is None else f"vector {self.axes[s.vector]} x {s.width}"
            return f"schedule {vector}, unroll {s.unroll}, grain {s.grain}"
        if isinstance(s, BlockSchedule):
            return f"schedule block {s.rows} x {s.inner}, warps {s.warps}"
        if isinstance(s, TileSchedule):
            at_once = f"group {s.group}, warps {s.warps}, stages {s.stages}"
            return f"schedule tile {s.m} x {s.n} x {s.k}, {at_once}"
        assert isinstance(s, ContractSchedule)
        return f"schedule tile {s.mr} x {s.nv} x {s.width}, kc {s.kc}, mc {s.mc}, grain {s.grain}"

    def _axes(self, axes: Sequence[Axis]) -> str:
        return ", ".join(f"{self.axes[a]} < {a.extent}" for a in axes) or "one point"

    def _nest(self, kernel: Nest) -> list[str]:
        lines = [f"  rows {self._axes(kernel.rows)}"]
        for p in kernel.passes:
            lines += [f"  pass {self._axes(p.axes)}", *self._body(p)]
        return lines

    def _contract(self, kernel: Contract) -> list[str]:
        m, n, k = kernel.m, kernel.n, kernel.k
        acc = self._local(kernel.acc)
        packed = "" if kernel.packed is None else f", packed {kernel.packed}"
        text = _Texts(self, (kernel.a, kernel.b))
        return [
            f"  batch {self._axes(kernel.batch)}" if kernel.batch else "  no batch",
            f"  m {self._axes((m,))}, n {self._axes((n,))}, k {self._axes((k,))}{packed}",
            *text.lets,
            f"    {acc} += {text[kernel.a]} * {text[kernel.b]}",
            "  then",
            *self._body(Pass((), (), kernel.stores)),
        ]

    def _local(self, local: Local) -> str:
        name = self.locals.setdefault(local.name, f"r{len(self.locals)}")
        return f"{name}: {local.dtype}"

    def _body(self, p: Pass) -> list[str]:
        roots: list[Expr] = [r.value for r in p.reductions]
        roots += [e for c in p.carries for e in (c.start, c.value)]
        for s in p.stores:
            roots += [s.value, *s.index, *([] if s.guard is None else [s.guard])]
        carried = [self._local(c.target) for c in p.carries]
        text = _Texts(self, roots)
        lines = list(text.lets)
        lines += [
            f"    {name} = {text[c.start]} then {text[c.value]}"
            for name, c in zip(carried, p.carries, strict=True)
        ]
        lines += [f"    {self._local(r.target)} = {r.op} {text[r.value]}" for r in p.reductions]
        lines += [self._store(s, text) for s in p.stores]
        return lines

    def _store(self, s: Store, text: _Texts) -> str:
        index = ", ".join(text[i] for i in s.index)
        guard = "" if s.guard is None else f" if {text[s.guard]}"
        sign = _ACCUMULATES[s.accumulate]
        return f"    {self.buffers[s.buffer]}[{index}] {sign} {text[s.value]}{guard}"


class _Texts:
    """The text of every expression below `roots`; what is used twice gets a name (`lets`)."""

    def __init__(self, printer: _KernelPrinter, roots: Sequence[Expr]) -> None:
        self.printer = printer
        self.lets: list[str] = []
        self.texts: dict[Expr, str] = {}
        order = walk(*roots)
        uses = dict.fromkeys(order, 0)
        for e in order:
            for x in operands(e):
                uses[x] += 1
        for r in roots:
            uses[r] += 1
        depth: dict[Expr, int] = {}
        for e in order:
            depth[e] = 1 + max((depth[x] for x in operands(e)), default=0)
            text = self._text(e)
            shared = uses[e] > 1 and isinstance(e, Apply | Load)
            if shared or (depth[e] > _DEEPEST and isinstance(e, Apply)):
                name = f"x{len(self.lets)}"
                self.lets.append(f"    {name} = {_bare(text)}")
                text, depth[e] = name, 1
            self.texts[e] = text

    def __getitem__(self, e: Expr) -> str:
        return _bare(self.texts[e])

    def _text(self, e: Expr) -> str:  # noqa: PLR0911, one for each form
        match e:
            case Const(value=value, dtype=dtype):
                return f"{value!r}" if dtype.name in {"i64", "bool"} else f"{dtype}({value!r})"
            case Index(axis=axis):
                return self.printer.axes[axis]
            case Extent(size=size):
                return f"<{size}>"
            case Local(name=name):
                return self.printer.locals[name]
            case Load(buffer=buffer, index=index, guard=guard):
                at = ", ".join(_bare(self.texts[i]) for i in index)
                text = f"{self.printer.buffers[buffer]}[{at}]"
                return text if guard is None else f"({text} if {self.texts[guard]})"
        assert isinstance(e, Apply)
        args = [self.texts[a] for a in e.args]
        if e.op in _INFIX and len(args) == 2:
            return f"({args[0]} {_INFIX[e.op]} {args[1]})"
        if e.op == "cast":
            return f"{e.dtype}({_bare(args[0])})"
        attrs = [f"{k}={v}" for k, v in e.attrs.items()]
        return f"{e.op}({', '.join([_bare(a) for a in args] + attrs)})"


def _range(s: Symbol) -> str:
    """A named size and what it may be: code that relies on it serves no other range."""
    low = "" if s.min == 0 else f"{s.min} <= "
    high = "" if s.max == Symbol(s.name).max else f" <= {s.max}"
    multiple = "" if s.multiple_of == 1 else f" multiple of {s.multiple_of}"
    return f"{low}{s.name}{high}{multiple}"


def _bare(text: str) -> str:
    """Without the outer parentheses, where they are one pair."""
    if not text.startswith("("):
        return text
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return text[1:-1] if i == len(text) - 1 else text
    return text


def print_program(program: Program) -> str:
    """A program as text: what it takes, every launch with its places, and each kernel once."""
    inputs = ", ".join(map(str, program.inputs))
    outputs = ", ".join(map(str, program.outputs))
    lines = [f"program {program.name}({inputs}) -> ({outputs})"]
    if program.reads:
        lines.append(f"  reads {', '.join(program.reads)}")
    if program.updates:
        lines.append(f"  updates {', '.join(program.updates)}")
    for i, c in enumerate(program.constants):
        lines.append(f"  constant {i}: {c.type}")
    for i, p in enumerate(program.prepared):
        lines.append(f"  prepared {i}: {p.dtype}[{', '.join(map(str, p.shape))}]")
    names: dict[str, str] = {}
    if program.prepare:
        lines.append(f"  prepare, arena {program.prepare_arena}")
        lines += _steps(program.prepare, names, "    ")
    lines.append(f"  run, arena {program.arena}")
    lines += _steps(program.run, names, "    ")
    for text, name in names.items():
        lines += ["", f"{name}:", text]
    return "\n".join(lines)


def _steps(steps: Sequence[Step], names: dict[str, str], indent: str) -> list[str]:
    """One line a launch; what is inside of a loop or choice is indented."""
    lines: list[str] = []
    inner = indent + "  "
    for step in steps:
        match step:
            case Launch():
                lines.append(indent + _launch(step, names))
            case Loop(counter=counter, trips=trips, body=body):
                lines += [f"{indent}for {counter} < {trips}", *_steps(body, names, inner)]
            case While(test=test, goes_on=place, body=body):
                lines += [f"{indent}loop", *_steps(test, names, inner)]
                lines += [f"{indent}while {_place(place)}", *_steps(body, names, inner)]
            case Choice(index=index, branches=branches):
                lines.append(f"{indent}switch {_place(index)}")
                for i, branch in enumerate(branches):
                    lines += [f"{indent}case {i}", *_steps(branch, names, inner)]
    return lines


def _launch(launch: Launch, names: dict[str, str]) -> str:
    text = print_kernel(launch.scheduled.kernel, launch.scheduled.schedule)
    name = names.setdefault(text, f"k{len(names)} {launch.scheduled.kernel.name}")
    places = ", ".join(map(_place, launch.places))
    sizes = "" if launch.sizes is None else f" sizes ({', '.join(map(str, launch.sizes))})"
    return f"{'and ' if launch.independent else ''}{name}({places}){sizes}"


def _place(place: Place) -> str:  # noqa: PLR0911, one for each kind
    match place:
        case InputAt(position=i):
            return f"input {i}"
        case OutputAt(position=i):
            return f"output {i}"
        case StorageAt(name=name):
            return name
        case PreparedAt(position=i):
            return f"prepared {i}"
        case ConstantAt(position=i):
            return f"constant {i}"
        case ArenaAt(offset=offset):
            return f"arena + {offset}"
        case PartAt(whole=whole, bytes=offset):
            return f"{_place(whole)} + {offset}"
