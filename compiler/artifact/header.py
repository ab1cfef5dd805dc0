"""The C header of an artifact: typed, documented functions."""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING

from fluxc.compiler.artifact.names import c_argument_names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluxc.compiler.ir.dims import Symbol
    from fluxc.compiler.ir.entry import Entry, ModelSpec
    from fluxc.compiler.ir.types import TensorType
    from fluxc.compiler.kernels.program import Program

__all__ = ["header_text"]

C_TYPES = {
    "f64": "double", "f32": "float", "f16": "uint16_t", "bf16": "uint16_t",
    "i64": "int64_t", "i32": "int32_t", "i16": "int16_t", "i8": "int8_t",
    "u64": "uint64_t", "u32": "uint32_t", "u16": "uint16_t", "u8": "uint8_t", "bool": "bool",
}  # fmt: skip

HEADER = Template("""\
/* $name: compiled by fluxc $version for $triple ($cpu).
 *
 * Link with lib$name.so.  Arrays are row-major and contiguous; an array without elements may be
 * NULL.  f16 and bf16 are their bits in a uint16_t.  Functions that return int32_t return 0, or an
 * error code:
 *
 *   1  a NULL, unaligned or overlapping argument, an unknown name
 *   2  a size outside its declared range
 *   3  a value outside its declared range, or not finite
 *   4  out of memory
 *   5  a file that is missing, truncated, altered, or of another model
 *   6  the model is in use in a way that excludes the call
 *
 * and ${name}_error() says more.  A call that failed has changed nothing.  A model may be shared by
 * threads: functions that change it run alone, the others side by side.
 */
#ifndef FLUXC_${guard}_H
#define FLUXC_${guard}_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct ${name}_model ${name}_t;

/* Opens a model.
 * weights: path of a safetensors file with its parameters, such as $name.safetensors.
 * seed:    of the random numbers; a file with a saved random state continues that instead.
 * threads: 0 for as many as there are cores, at most 1024.  Results do not depend on it.
 * Returns NULL on failure. */
${name}_t *${name}_open(const char *weights, uint64_t seed, int32_t threads);

/* Closes a model; NULL is allowed.  No other call may be using it. */
void ${name}_close(${name}_t *m);

/* Writes parameters, states, optimiser state, hyper-parameters and random state to a safetensors
 * file, which is replaced when it is complete. */
int32_t ${name}_save(${name}_t *m, const char *path);

/* Takes the values of a saved file, or of one with the parameters alone: optimiser state is then
 * reset.  A model is as before if the file is refused. */
int32_t ${name}_load(${name}_t *m, const char *path);

/* What went wrong in the last call of this thread that failed. */
const char *${name}_error(void);

/* The live data of a stored tensor, or NULL if the name is unknown. */
const void *${name}_get(${name}_t *m, const char *name);

/* Sets a stored tensor to count elements of its dtype. */
int32_t ${name}_set(${name}_t *m, const char *name, const void *data, int64_t count);
$entries$storages
#ifdef __cplusplus
}
#endif

#endif
""")


def header_text(
    name: str,
    spec: ModelSpec,
    programs: Iterable[Program],
    triple: str,
    cpu: str,
    version: str,
) -> str:
    """The text of NAME.h; compiles as C99 and as C++17."""
    pairs = zip(spec.entries, programs, strict=True)
    return HEADER.substitute(
        name=name,
        guard=name.upper(),
        version=version,
        triple=triple,
        cpu=cpu,
        entries="".join(_entry_text(name, entry, program) for entry, program in pairs),
        storages=_storages_text(spec),
    )


def _range(symbol: Symbol) -> str:
    text = f"at least {symbol.min}" if symbol.max >= 2**62 else f"{symbol.min} to {symbol.max}"
    return text if symbol.multiple_of == 1 else f"{text}, a multiple of {symbol.multiple_of}"


def _argument(type: TensorType, name: str, *, constant: bool) -> str:
    return f"{'const ' if constant else ''}{C_TYPES[type.dtype.name]} *{name}"


def _entry_text(name: str, entry: Entry, program: Program) -> str:
    symbols, inputs, outputs = c_argument_names(
        [s.name for s in program.symbols], entry.inputs, entry.outputs
    )
    rows = [(c, f"size, {_range(s)}") for c, s in zip(symbols, program.symbols, strict=True)]
    rows += [(c, str(t)) for c, t in zip(inputs, program.inputs, strict=True)]
    rows += [(c, f"result, {t}") for c, t in zip(outputs, program.outputs, strict=True)]
    width = max((len(c) for c, _ in rows), default=0)
    doc = "".join(f"\n *   {c:<{width}}  {text.replace('*/', '* /')}" for c, text in rows)
    arguments = [
        f"{name}_t *m",
        *(f"int64_t {c}" for c in symbols),
        *(_argument(t, c, constant=True) for c, t in zip(inputs, program.inputs, strict=True)),
        *(_argument(t, c, constant=False) for c, t in zip(outputs, program.outputs, strict=True)),
    ]
    effect = " It changes the model." if program.updates else ""
    head = f"\n/* Entry {entry.name}.{effect}{doc} */\n"
    return f"{head}int32_t {name}_{entry.name}({', '.join(arguments)});\n"


def _storages_text(spec: ModelSpec) -> str:
    if not spec.storages:
        return ""
    rows = "".join(f" *   {_quoted(s.name)}: {s.type}, {s.kind}\n" for s in spec.storages)
    return f"\n/* Stored tensors:\n{rows} */\n"


def _quoted(text: str) -> str:
    return text.replace("*/", "* /").replace("\n", " ").replace("\\", "/")
