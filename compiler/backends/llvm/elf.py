"""The dynamic part of a 64-bit little-endian ELF file: what it needs and what it offers."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from fluxc.compiler.errors import BuildError

__all__ = ["Dynamic", "read_dynamic"]

SHT_DYNAMIC, SHT_DYNSYM = 6, 11
DT_NEEDED = 1
STB_WEAK = 2


@dataclass(frozen=True, slots=True)
class Dynamic:
    """needed: libraries; undefined: symbols that they must have; defined: own symbols."""

    needed: tuple[str, ...]
    undefined: tuple[str, ...]
    defined: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Section:
    kind: int
    offset: int
    size: int
    link: int


def _sections(data: bytes) -> list[_Section]:
    start, step, count = *struct.unpack_from("<Q", data, 40), *struct.unpack_from("<HH", data, 58)
    sections = []
    for i in range(count):
        _, kind, _, _, offset, size, link = struct.unpack_from("<IIQQQQI", data, start + i * step)
        sections.append(_Section(kind, offset, size, link))
    return sections


def _name(data: bytes, strings: _Section, at: int) -> str:
    start = strings.offset + at
    return data[start : data.index(b"\0", start)].decode()


def read_dynamic(data: bytes) -> Dynamic:
    """Read the dynamic section and the dynamic symbols of a shared library.

    Source  System V ABI, chapters 4 and 5 (64-bit object file format)
    Errors  BuildError if it is not such a file
    """
    try:
        return _read(data)
    except (struct.error, ValueError, IndexError) as error:
        raise BuildError("the linker made a file that is not a shared library") from error


def _read(data: bytes) -> Dynamic:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ValueError("not a 64-bit little-endian ELF file")
    sections = _sections(data)
    needed: list[str] = []
    undefined: list[str] = []
    defined: list[str] = []
    for section in sections:
        if section.kind == SHT_DYNAMIC:
            pairs = struct.iter_unpack("<qQ", data[section.offset : section.offset + section.size])
            strings = sections[section.link]
            needed += [_name(data, strings, value) for tag, value in pairs if tag == DT_NEEDED]
        elif section.kind == SHT_DYNSYM:
            strings = sections[section.link]
            symbols = struct.iter_unpack(
                "<IBBHQQ", data[section.offset : section.offset + section.size]
            )
            for name, info, _, index, _, _ in list(symbols)[1:]:
                if index != 0:
                    defined.append(_name(data, strings, name))
                elif info >> 4 != STB_WEAK:
                    undefined.append(_name(data, strings, name))
    return Dynamic(tuple(needed), tuple(sorted(undefined)), tuple(sorted(defined)))
