"""From an object file to a shared library: the runtime beside it, the C library below, no more.

The runtime is C source, compiled once per compiler and kept in a cache.  `start_runtime_build`
begins that in the background, so that it overlaps with the work of LLVM.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from fluxc.compiler.backends.llvm.elf import read_dynamic
from fluxc.compiler.errors import BuildError, Unsupported
from fluxc.compiler.knobs import knob

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fluxc.compiler.kernels.schedule import Target

__all__ = [
    "RuntimeBuild",
    "can_link",
    "has_ziglang",
    "link_library",
    "link_object",
    "runtime_sources",
    "start_runtime_build",
]

SOURCES = ("error.c", "model.c", "call.c", "threads.c", "weights.c")
HEADERS = ("abi.h", "runtime.h")
COMPILE = (
    *("-std=c99", "-O2", "-g0", "-fPIC", "-pthread", "-Wall"),
    *("-fvisibility=hidden", "-ffunction-sections", "-fdata-sections", "-fno-ident"),
)
# -z defs: what neither the object, the runtime, libgcc nor the C library defines is an error.
LINK = (
    *("-shared", "-pthread", "-nodefaultlibs"),
    *("-Wl,--gc-sections", "-Wl,--strip-debug", "-Wl,--build-id=none", "-Wl,--no-demangle"),
    *("-Wl,-z,defs", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack", "-Wl,--hash-style=gnu"),
)
LIBRARIES = ("-lgcc", "-lc")
# zig's linker knows no --no-demangle, and brings what libgcc is for by itself.
ZIG_LINK = tuple(o for o in LINK if o not in ("-nodefaultlibs", "-Wl,--no-demangle"))
ZIG_GLIBC = "2.28"  # the oldest C library that what zig builds asks for
MACHINE = platform.machine()
C_LIBRARY = re.compile(r"(lib(c|pthread)\.(so\.6|so\.0|so|musl-\w+\.so\.1))|ld-(linux|musl)\S*")
UNDEFINED = re.compile(r"undefined (?:reference to|symbol:) [`']?([^'\s]+)")


def runtime_sources() -> dict[str, str]:
    """The runtime's C files by name, headers first."""
    folder = files("fluxc.runtime") / "native"
    return {name: (folder / name).read_text("utf-8") for name in (*HEADERS, *SOURCES)}


def find_compiler(target: Target | None = None) -> list[str]:
    """The command of the C compiler, as a list of words.

    The system's where it makes code for the target, else the one of the ziglang package, which
    makes code for any.
    Errors  BuildError with what to install if there is none.
    """
    chosen = shlex.split(knob("FLUXC_CC"))
    if not chosen and target is not None and _is_foreign(target.triple) and has_ziglang():
        return _zig(target)
    for command in [chosen] if chosen else [["cc"], ["gcc"], ["clang"]]:
        path = shutil.which(command[0])
        if path is not None:
            return [path, *command[1:]]
    if not chosen and has_ziglang():
        return _zig(target)
    raise BuildError(
        "no C compiler was found" if not chosen else f"FLUXC_CC names no program: {chosen[0]}",
        expected="cc, gcc or clang on PATH",
        hint="apt install gcc libc6-dev   or   dnf install gcc   or   pip install 'fluxc[cross]'"
        "   or   FLUXC_CC=/path/to/cc",
    )


def can_link(target: Target) -> str:
    """`ready`, or what is missing to build artifacts for a target."""
    try:
        compiler = find_compiler(target)
        _check_machine(target.triple, _identity(compiler))
    except (BuildError, Unsupported) as error:
        return error.hint or error.summary
    return "ready, by zig" if is_zig(compiler) else "ready"


def _identity(compiler: list[str]) -> str:
    """The machine that a compiler makes code for, in its own words."""
    if is_zig(compiler):
        return compiler[compiler.index("-target") + 1]
    return _run([*compiler, "-dumpmachine"], "asking the C compiler for its target").strip()


def has_ziglang() -> bool:
    """Whether the `ziglang` package is installed: a C compiler and its libraries in a wheel."""
    return importlib.util.find_spec("ziglang") is not None


def _zig(target: Target | None) -> list[str]:
    triple = target.triple if target is not None else f"{MACHINE}-linux-gnu"
    c_library = "musl" if "musl" in triple else f"gnu.{ZIG_GLIBC}"
    name = f"{_architecture(triple)}-linux-{c_library}"
    # Without -fno-sanitize zig adds checks of undefined behaviour, and a library for them.
    return [sys.executable, "-m", "ziglang", "cc", "-target", name, "-fno-sanitize=undefined"]


def _is_foreign(triple: str) -> bool:
    """Whether zig builds for a machine that the system's compiler does not."""
    name = _architecture(triple)
    return name != _architecture(MACHINE) and name in ("x86_64", "aarch64") and "linux" in triple


def _architecture(triple: str) -> str:
    name = triple.partition("-")[0]
    return {"amd64": "x86_64", "arm64": "aarch64"}.get(name.lower(), name)


def is_zig(compiler: list[str]) -> bool:
    return "ziglang" in compiler


def _run(command: list[str], what: str) -> str:
    """Run a tool and return what it printed.  Messages are asked for in English."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode != 0:
        _refuse(what, command, done.stderr)
    return done.stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "LC_ALL": "C"}


def _refuse(what: str, command: list[str], errors: str) -> None:
    missing = sorted(set(UNDEFINED.findall(errors)))
    if missing:
        raise BuildError(
            f"the library would need what the C library does not have: {', '.join(missing)}",
            expected="code that calls the C library alone",
        )
    lines = [line for line in errors.strip().splitlines() if line.strip()]
    raise BuildError(
        f"{what} failed: {' '.join(command[:1])}", got="\n            ".join(lines[:8])
    )


@dataclass(slots=True)
class RuntimeBuild:
    """The runtime being compiled, or found in the cache."""

    compiler: list[str]
    cached: Path | None
    process: subprocess.Popen[bytes] | None = None
    folder: Path | None = None
    result: bytes | None = field(default=None, repr=False)

    def object_bytes(self) -> bytes:
        """The object file, once it is there.

        Errors  BuildError with the compiler's first lines if it failed.
        """
        if self.result is None:
            self.result = self._wait()
        return self.result

    def __del__(self) -> None:
        """A compile that failed before it linked leaves no process and no files behind."""
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            self.process.communicate()
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _wait(self) -> bytes:
        assert self.process is not None, "a build is either running or has its result"
        assert self.folder is not None, "a running build has a folder"
        _, errors = self.process.communicate()
        try:
            if self.process.returncode != 0:
                _refuse("compiling the runtime", self.compiler, errors.decode(errors="replace"))
            data = (self.folder / "runtime.o").read_bytes()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        if self.cached is not None:
            _store(self.cached, data)
        return data


def start_runtime_build(target: Target | None = None) -> RuntimeBuild:
    """Begin to compile the runtime in the background, unless the cache has it.

    Errors  BuildError if there is no C compiler; Unsupported if it makes code for another machine.
    """
    compiler = find_compiler(target)
    sources = runtime_sources()
    identity = _identity(compiler)
    if target is not None:
        _check_machine(target.triple, identity)
    version = _run([*compiler, "--version"], "asking the C compiler for its version")
    key = hashlib.sha256()
    for part in (
        *compiler,
        identity,
        version,
        *COMPILE,
        *(t for pair in sources.items() for t in pair),
    ):
        key.update(f"{len(part)}:{part}".encode())
    cached = _cache_folder()
    cached = cached / f"runtime-{key.hexdigest()[:32]}.o" if cached is not None else None
    build = RuntimeBuild(compiler, cached)
    build.result = _stored(cached) if cached is not None else None
    if build.result is None:
        build.folder = Path(tempfile.mkdtemp(prefix="fluxc-runtime-"))
        build.process = _compile(compiler, sources, build.folder)
    return build


def _compile(compiler: list[str], sources: dict[str, str], folder: Path) -> subprocess.Popen[bytes]:
    """One translation unit: one start of the compiler."""
    for name, text in sources.items():
        (folder / name).write_text(text, "utf-8")
    unit = "".join(f'#include "{name}"\n' for name in SOURCES)
    (folder / "runtime.c").write_text(unit)
    command = [*compiler, *COMPILE, "-c", "runtime.c", "-o", "runtime.o"]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def _check_machine(triple: str, machine: str) -> None:
    if _architecture(triple) != _architecture(machine) or "linux" not in triple:
        raise Unsupported(
            f"the C compiler cannot link for {triple}",
            expected=f"a Linux target of this machine, {machine}",
            hint="pip install 'fluxc[cross]'   or   FLUXC_CC=<a cross compiler for the target>",
        )


def _cache_folder() -> Path | None:
    """Where compiled runtimes are kept, or None where nothing can be written."""
    chosen = knob("FLUXC_CACHE")
    folder = Path(chosen) if chosen else Path(os.path.expanduser("~/.cache/fluxc"))  # noqa: PTH111  "~" stays where there is no home
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None


def _stored(path: Path) -> bytes | None:
    """A cached object, if it is whole: its own hash stands in front of it."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None


def _store(path: Path, data: bytes) -> None:
    """Keep an object; two processes may do so at once.  An unwritable cache is no error."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(hashlib.sha256(data).digest() + data)
        os.replace(file.name, path)  # noqa: PTH105
    except OSError:
        return


def link_library(
    object_bytes: bytes,
    runtime: RuntimeBuild,
    output: Path,
    exports: Iterable[str],
) -> None:
    """Link emitted code and the runtime into the shared library `output`.

    exports  the names that the library offers; all others are hidden.
    Errors   BuildError if code needs anything but the C library, or an export is missing.
    """
    names = sorted(exports)
    with tempfile.TemporaryDirectory(prefix="fluxc-link-") as folder:
        here = Path(folder)
        (here / "model.o").write_bytes(object_bytes)
        (here / "runtime.o").write_bytes(runtime.object_bytes())
        (here / "names").write_text(
            f"{{ global: {' '.join(f'{n};' for n in names)} local: *; }};\n"
        )
        parts = [str(here / "model.o"), str(here / "runtime.o")]
        options = [f"-Wl,-soname,{output.name}", f"-Wl,--version-script={here / 'names'}"]
        zig = is_zig(runtime.compiler)
        how, libraries = (ZIG_LINK, ()) if zig else (LINK, LIBRARIES)
        command = [*runtime.compiler, *how, *options, *parts, *libraries, "-o", str(output)]
        _run(command, "linking the library")
    check_library(output, names)


def link_object(object_bytes: bytes, runtime: RuntimeBuild, output: Path) -> None:
    """Join emitted code and the runtime into one relocatable object file.

    Hidden names become the file's own, so that a program may link several.
    Errors  BuildError if the linker fails or there is no objcopy.
    """
    objcopy = shutil.which("objcopy") or shutil.which("llvm-objcopy")
    if objcopy is None:
        raise BuildError(
            "no objcopy was found, which makes hidden names an object file's own",
            hint="apt install binutils",
        )
    with tempfile.TemporaryDirectory(prefix="fluxc-link-") as folder:
        here = Path(folder)
        (here / "model.o").write_bytes(object_bytes)
        (here / "runtime.o").write_bytes(runtime.object_bytes())
        parts = [str(here / "model.o"), str(here / "runtime.o")]
        command = [*runtime.compiler, "-r", "-nostdlib", *parts, "-o", str(output)]
        _run(command, "joining the object files")
        _run([objcopy, "--localize-hidden", str(output)], "hiding the runtime's names")


def check_library(path: Path, exports: list[str]) -> None:
    """Refuse a library that needs more than the C library, or offers other names than `exports`.

    Errors  BuildError naming the libraries or symbols.
    """
    dynamic = read_dynamic(path.read_bytes())
    foreign = [name for name in dynamic.needed if not C_LIBRARY.fullmatch(name)]
    if foreign:
        raise BuildError(
            f"the library needs {', '.join(foreign)}",
            expected="the C library alone",
            got=", ".join(dynamic.needed),
        )
    missing = sorted(set(exports) - set(dynamic.defined))
    surplus = sorted(set(dynamic.defined) - set(exports))
    if missing or surplus:
        raise BuildError(
            "the library does not offer what its header declares",
            expected=", ".join(exports),
            got=", ".join(dynamic.defined),
        )
