"""Imports point one way: every module imports only from layers at or below its own."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {"fluxc.compiler": "compiler", "fluxc.runtime": "runtime", "fluxc": "dsl"}

# From the top down.  Layers on one line may not see each other.
LAYERS = (
    ("fluxc.compiler.cli", "fluxc.compiler.__main__"),
    ("fluxc.compiler.use",),
    ("fluxc",),
    ("fluxc.compiler.driver",),
    ("fluxc.compiler.artifact",),
    ("fluxc.compiler.backends.llvm", "fluxc.compiler.backends.triton"),
    ("fluxc.compiler.backends",),
    ("fluxc.compiler.kernels",),
    ("fluxc.compiler.passes", "fluxc.compiler.autodiff"),
    ("fluxc.compiler.functions",),
    ("fluxc.compiler.ops",),
    ("fluxc.compiler.ir",),
    ("fluxc.train",),  # these run where nothing is compiled
    ("fluxc.data",),
    ("fluxc.compiler.errors", "fluxc.compiler.knobs", "fluxc.compiler.advice"),
)
# Who may import a third-party package.
HOMES = {
    "llvmlite": "fluxc.compiler.backends.llvm",
    "lark": ("fluxc.compiler.ir.parser", "fluxc.compiler.ir.pattern"),
    "triton": "fluxc.compiler.backends.triton",
    "typer": "fluxc.compiler.cli",
    "rich": ("fluxc.compiler.cli", "fluxc.train.progress"),
    "matplotlib": "fluxc.train.history",
    "tensorboardX": "fluxc.train.callbacks",
}


def modules():
    for package, folder in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            name = ".".join((package, *(p for p in parts if p != "__init__")))
            yield name, path


MODULES = dict(modules())


def statements(tree):
    """Every node of a file but those under `if TYPE_CHECKING`, which never run."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from statements(node)


def imported(name, path):
    """Absolute names of the modules that a file imports, whatever the depth in the file."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in statements(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([base] if base else [])])
            yield base
            inside = (f"{base}.{alias.name}" for alias in node.names)
            yield from (name for name in inside if name in MODULES)


def layer_of(name):
    """The layer, and the member of it, that a module belongs to: the longest prefix wins."""
    found = [
        (len(member), index, member)
        for index, layer in enumerate(LAYERS)
        for member in layer
        if name == member or name.startswith(member + ".")
    ]
    return max(found)[1:] if found else None


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name):
    for other in imported(name, MODULES[name]):
        if not other.startswith("fluxc"):
            continue
        if name.startswith("fluxc.runtime"):
            assert other.startswith("fluxc.runtime"), f"{name} imports {other}"
            continue
        if name == "fluxc.compiler" or other in ("fluxc.compiler", "fluxc.runtime"):
            continue
        assert not other.startswith("fluxc.runtime"), f"{name} imports {other}"
        (mine, my_layer), (its, its_layer) = layer_of(name), layer_of(other)
        entry = name == "fluxc.compiler.__main__" and other == "fluxc.compiler.cli"
        allowed = mine < its or my_layer == its_layer or entry
        assert allowed, f"{name} imports {other}, a layer above or beside it"


@pytest.mark.parametrize("name", MODULES)
def test_third_party_packages_stay_at_home(name):
    for other in imported(name, MODULES[name]):
        home = HOMES.get(other.split(".")[0])
        allowed = home is None or name.startswith(home)
        assert allowed, f"{name} imports {other}, which belongs to {home}"


def printed(script):
    command = [sys.executable, "-c", script]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout


def loaded_after(code):
    loaded = printed(f"import sys; {code}; print(*sys.modules)").split()
    return {name.split(".")[0] for name in loaded}


def test_importing_the_dsl_loads_no_back_end():
    back_ends = {"llvmlite", "lark", "triton", "typer", "rich", "matplotlib", "tensorboardX"}
    assert not loaded_after("import fluxc, fluxc.nn, fluxc.optim") & back_ends


def test_the_runtime_stands_alone():
    binding = ROOT / "runtime" / "binding.py"
    packages = {n.split(".")[0] for n in imported("fluxc.runtime.binding", binding)}
    assert packages <= {"numpy", *sys.stdlib_module_names}


def test_importing_fluxc_is_quick():
    """Under 0.2 s of processor time beyond what NumPy itself takes to import is far too much."""
    clock = "time.process_time()"
    script = f"import time, numpy; t = {clock}; import fluxc; print({clock} - t)"
    assert min(float(printed(script)) for _ in range(3)) < 0.2
