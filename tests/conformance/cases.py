"""The cases of the file, their arrays and tolerances, and the table of who runs which.

The file lies beside the project and is no part of it.  Its arrays are Julia's: the batch last, the
first index fastest, positions from 1.  Reversing all axes keeps the bytes and gives fluxc's order.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FILE = Path(__file__).parents[3] / "shared" / "conformance" / "flux.json"


@dataclass(frozen=True)
class Case:
    what: str
    args: dict
    expect: object
    rtol: float
    atol: float

    @property
    def name(self):
        """What is tested, without its family."""
        return self.what.split("/", 1)[-1].split()[0]


def read_cases():
    if not FILE.exists():
        return {}
    return {
        c["what"]: Case(
            c["what"],
            c["args"],
            c["expect"],
            rtol=c["tol"].get("rtol", 0.0),
            atol=c["tol"].get("atol", 0.0),
        )
        for c in json.loads(FILE.read_text())
    }


CASES = read_cases()
RUNNERS = []
"""Names, each whole or ending in * for all that begin so, and the function that runs them."""


def covers(*names):
    """Let a function run the cases of these names: f(case) -> what is compared with `expect`."""

    def enter(f):
        RUNNERS.append((names, f))
        return f

    return enter


def fits(name, what):
    return what.startswith(name[:-1]) if name.endswith("*") else what == name


def runners(what):
    return [f for names, f in RUNNERS if any(fits(name, what) for name in names)]


@dataclass(frozen=True)
class Stated:
    """What came, beside what a case expects in words."""

    actual: object
    expected: object


def array(value, dtype=np.float64):
    """An array of the file with its axes reversed."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, dict):
        return np.array(value["colmajor"], dtype).reshape(value["shape"][::-1])
    return np.array(value, dtype).T


def images(value):
    """An array of the file as one image of one channel."""
    return array(value)[None, None]


def counting(shape):
    """1, 2, ... in Julia's order, as one image of one channel."""
    return np.arange(1.0, np.prod(shape) + 1).reshape(1, 1, *reversed(shape))


def dtype_of(args):
    return np.dtype(args.get("dtype", "Float64").lower())


def julia_shape(shape):
    return list(reversed(shape))


def agree(case, actual, expected):
    """Fail unless they are equal by Julia's isapprox, which takes the norm of whole arrays.

    Arrays that came have fluxc's order of axes; lists and dicts have the file's.
    """
    if isinstance(actual, dict):
        assert actual.keys() == expected.keys()
        for key in actual:
            agree(case, actual[key], expected[key])
    elif isinstance(actual, list):
        assert len(actual) == len(expected), (actual, expected)
        for a, e in zip(actual, expected, strict=True):
            agree(case, a, e)
    elif actual is None or isinstance(actual, str):
        assert actual == expected
    else:
        close(case, np.asarray(actual), array(expected))


def close(case, actual, expected):
    """The numbers of the file in the dtype that came, both then in f64."""
    if actual.dtype.kind == "f":
        expected = expected.astype(actual.dtype)
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    assert actual.shape == expected.shape, (actual, expected)
    size = max(np.linalg.norm(actual.ravel()), np.linalg.norm(expected.ravel()))
    distance = np.linalg.norm((actual - expected).ravel())
    assert distance <= max(case.atol, case.rtol * size), (actual, expected, distance)
