"""Computes the polynomials of `compiler/functions/coefficients.py` and prints that file.

Method: the smooth factor left when the leading terms of a series are taken out is interpolated at
Chebyshev nodes in 60 digits (within a small factor of the best polynomial of its degree), converted
to powers, and rounded.  The degree is the lowest for which the whole function's relative error on
10 times as many points stays under a sixteenth (f64: an eighth) of a unit in the last place; where
the rounding of the coefficients forbids that, under twice or four times as much.

Needs mpmath.  Run: python benchmarks/fit_polynomials.py > compiler/functions/coefficients.py
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import mpmath as mp
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

mp.mp.dps = 60
Real = mp.mpf


@dataclass(frozen=True)
class Fit:
    """`factor(x)` on [low, high]; an error d of the factor is an error `weight(x) * d` of the
    function, relative to its value."""

    name: str
    formula: str
    factor: Callable[[Real], Real]
    weight: Callable[[Real], Real]
    low: Real
    high: Real
    bits: tuple[int, ...] = (32, 64)


def _taylor(f: Callable[[Real], Real]) -> Callable[[Real], Real]:
    """f with more digits, since its leading terms cancel near 0."""

    def precise(x: Real) -> Real:
        with mp.workdps(160):
            return f(x or mp.mpf(10) ** -40)

    return precise


def _odd(f: Callable[[Real], Real]) -> Callable[[Real], Real]:
    """(f(x) - x) / x**3 as a function of z = x*x."""
    return _taylor(lambda z: (f(mp.sqrt(z)) - mp.sqrt(z)) / (z * mp.sqrt(z)))


def _odd_weight(f: Callable[[Real], Real]) -> Callable[[Real], Real]:
    return _taylor(lambda z: z * mp.sqrt(z) / f(mp.sqrt(z)))


HALF_LN2 = mp.log(2) / 2 * mp.mpf("1.002")  # the reduction rounds an inexact quotient
LOG_LOW, LOG_HIGH = mp.sqrt(mp.mpf("0.5")) - 1, mp.sqrt(2) - 1
S_HIGH = (LOG_HIGH / (2 + LOG_HIGH)) ** 2
LOG_S = lambda s: mp.log((1 + s) / (1 - s))
QUARTER = (mp.pi / 4 * mp.mpf("1.001")) ** 2
ERF_EDGE = {32: mp.mpf("3.95"), 64: mp.mpf("5.95")}
NEGATIVE_LOG_ERFC = lambda x: -mp.log(mp.erfc(x))
ERFC_WEIGHT = lambda x: mp.erfc(x) / mp.erf(x)

# fmt: off
FITS = [
    Fit("EXP", "(exp(r) - 1 - r) / r**2", _taylor(lambda r: (mp.exp(r) - 1 - r) / r**2),
        _taylor(lambda r: r**2 / mp.expm1(r)), -HALF_LN2, HALF_LN2),  # exp itself asks for less
    Fit("LOG", "(log(1+f) - f + f**2/2) / f**3",
        _taylor(lambda f: (mp.log(1 + f) - f + f**2 / 2) / f**3),
        _taylor(lambda f: f**3 / mp.log(1 + f)), LOG_LOW, LOG_HIGH, (32,)),
    Fit("LOG_S", "(log((1+s)/(1-s)) - 2s) / s**3, in s**2",
        _taylor(lambda z: (LOG_S(mp.sqrt(z)) - 2 * mp.sqrt(z)) / (z * mp.sqrt(z))),
        lambda z: z / 2, mp.mpf(0), S_HIGH, (64,)),
    Fit("LOG_S5", "(log((1+s)/(1-s)) - 2s - 2/3 s**3) / s**5, in s**2",
        _taylor(lambda z: (LOG_S(mp.sqrt(z)) - 2 * mp.sqrt(z) - z * mp.sqrt(z) * 2 / 3)
                / (z**2 * mp.sqrt(z))),
        lambda z: z**2 / 2 * 2**8, mp.mpf(0), S_HIGH, (64,)),
    Fit("SIN", "(sin(r) - r) / r**3, in r**2", _odd(mp.sin), _odd_weight(mp.sin),
        mp.mpf(0), QUARTER),
    Fit("COS", "(cos(r) - 1 + r**2/2) / r**4, in r**2",
        _taylor(lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2),
        lambda z: z**2 / mp.cos(mp.sqrt(z)), mp.mpf(0), QUARTER),
    Fit("ATAN", "(atan(t) - t) / t**3, in t**2", _odd(mp.atan), _odd_weight(mp.atan),
        mp.mpf(0), (mp.sqrt(2) - 1) ** 2 * mp.mpf("1.0001")),
    Fit("ASIN", "(asin(s) - s) / s**3, in s**2", _odd(mp.asin), _odd_weight(mp.asin),
        mp.mpf(0), mp.mpf("0.25")),
    Fit("SINH", "(sinh(x) - x) / x**3, in x**2", _odd(mp.sinh), _odd_weight(mp.sinh),
        mp.mpf(0), mp.mpf(1)),
    Fit("ERF", "(erf(x) - x) / x, in x**2", _taylor(lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1),
        _taylor(lambda z: mp.sqrt(z) / mp.erf(mp.sqrt(z))), mp.mpf(0), mp.mpf(1)),
]
# fmt: on


def chebyshev(factor: Callable[[Real], Real], low: Real, high: Real, degree: int) -> list[Real]:
    """Coefficients in powers of x of the interpolant at the Chebyshev nodes."""
    n = degree + 1
    middle, half = (low + high) / 2, (high - low) / 2
    angles = [mp.pi * (2 * i + 1) / (2 * n) for i in range(n)]
    values = [factor(middle + half * mp.cos(a)) for a in angles]
    series = [2 / mp.mpf(n) * sum(v * mp.cos(j * a) for v, a in zip(values, angles, strict=True))
              for j in range(n)]  # fmt: skip
    series[0] /= 2
    return _in_powers(series, middle, half)


def _in_powers(series: list[Real], middle: Real, half: Real) -> list[Real]:
    """sum of series[j] * T_j((x - middle) / half), in powers of x (Clenshaw on polynomials)."""
    line = [-middle / half, 1 / half]
    after, before = [mp.mpf(0)], [mp.mpf(0)]
    for c in reversed(series[1:]):
        after, before = _sum(_sum([c], [2 * t for t in _product(line, after)]),
                             [-t for t in before]), after  # fmt: skip
    return _sum(_sum([series[0]], _product(line, after)), [-t for t in before])[: len(series)]


def _product(a: list[Real], b: list[Real]) -> list[Real]:
    out = [mp.mpf(0)] * (len(a) + len(b) - 1)
    for i, x in enumerate(a):
        for j, y in enumerate(b):
            out[i + j] += x * y
    return out


def _sum(a: list[Real], b: list[Real]) -> list[Real]:
    n = max(len(a), len(b))
    return [(a[i] if i < len(a) else 0) + (b[i] if i < len(b) else 0) for i in range(n)]


def rounded(c: Real, bits: int) -> float:
    return float(np.float32(float(c))) if bits == 32 else float(c)


def worst(fit: Fit, coefficients: list[float], low: Real, high: Real) -> Real:
    """The largest relative error of the function when the factor is this polynomial."""
    exact = [mp.mpf(c) for c in coefficients]
    count = 10 * len(exact)
    points = [low + (high - low) * i / count for i in range(count + 1)]
    return max(
        abs((mp.polyval(exact[::-1], x) - fit.factor(x)) * fit.weight(x)) for x in points if x
    )


def fitted(fit: Fit, bits: int) -> list[float]:
    for limit in (2.0 ** (-28 if bits == 32 else -56) * looser for looser in (1, 2, 4)):
        for degree in range(1, 24):
            found = [rounded(c, bits) for c in chebyshev(fit.factor, fit.low, fit.high, degree)]
            if worst(fit, found, fit.low, fit.high) < limit:
                return found
    raise AssertionError(f"{fit.name}: no degree is enough")


def erfc_fit(bits: int) -> list[float]:
    """-log(erfc(1 + x)) for x in [0, edge - 1].

    The weight erfc/erf falls by many orders, so the fit minimises the weighted squares instead.
    """
    length = ERF_EDGE[bits] - 1
    factor = lambda x: NEGATIVE_LOG_ERFC(1 + x)
    weight = lambda x: ERFC_WEIGHT(1 + x)
    fit = Fit("ERFC", "", factor, weight, mp.mpf(0), length)
    limit = mp.mpf(2) ** (-27 if bits == 32 else -56)
    for degree in range(4, 32):
        n = 4 * (degree + 1)
        nodes = [length / 2 * (1 + mp.cos(mp.pi * (2 * i + 1) / (2 * n))) for i in range(n)]
        rows = mp.matrix([[weight(x) * x**j for j in range(degree + 1)] for x in nodes])
        right = mp.matrix([weight(x) * factor(x) for x in nodes])
        solution = mp.lu_solve(rows.T * rows, rows.T * right)
        found = [rounded(c, bits) for c in solution]
        if worst(fit, found, mp.mpf(0), length) < limit:
            return found
    raise AssertionError("ERFC: no degree is enough")


def pieces(value: Real, bits: int, lengths: tuple[int, ...]) -> list[float]:
    """Floats that add up to the value; piece i has at most lengths[i] significant bits."""
    found = []
    for length in lengths:
        exponent = mp.floor(mp.log(abs(value), 2)) + 1 - length
        piece = mp.nint(value / mp.mpf(2) ** exponent) * mp.mpf(2) ** exponent
        found.append(rounded(piece, bits))
        value -= mp.mpf(found[-1])
    return found


def constants() -> dict[str, dict[int, list[float]]]:
    """The first piece is short where its product with an integer must be exact."""
    short = {32: (14, 24), 64: (40, 53)}
    full = {32: (24, 24), 64: (53, 53)}
    both = lambda value, lengths: {b: pieces(value, b, lengths[b]) for b in (32, 64)}
    return {
        "LN2": both(mp.log(2), short),
        "LOG10_2": both(mp.log10(2), short),
        "HALF_PI": both(mp.pi / 2, full),
        "HALF_PI_SHORT": {64: pieces(mp.pi / 2, 64, (33, 33, 33, 53))},
        "LN2_THREE": {64: pieces(mp.log(2), 64, (40, 40, 53))},
        "TWO_THIRDS": {64: pieces(mp.mpf(2) / 3, 64, (53, 53))},
    }


def two_over_pi(words: int) -> list[int]:
    """A word of zeros, then the binary digits of 2/pi, 64 a word."""
    with mp.workprec(64 * words + 64):
        digits = int(mp.floor(2 / mp.pi * mp.mpf(2) ** (64 * words)))
    return [0] + [digits >> 64 * (words - 1 - i) & 2**64 - 1 for i in range(words)]


def table(name: str, formula: str, rows: dict[int, list[float]]) -> str:
    lines = [f"# {formula}", f"{name}: Table = {{"]
    for bits, coefficients in rows.items():
        lines += [f"    {bits}: (", *(f"        {c!r}," for c in coefficients), "    ),"]
    return "\n".join([*lines, "}"])


def main() -> None:
    print('"""Polynomials of the functions, lowest power first, by bits of the float.\n')
    print("Written by benchmarks/fit_polynomials.py, which states the method.")
    print('"""\n\nfrom __future__ import annotations\n\nTable = dict[int, tuple[float, ...]]\n')
    for fit in FITS:
        print(table(fit.name, f"The factor: {fit.formula}.", {b: fitted(fit, b) for b in fit.bits}))
    for name, rows in constants().items():
        print(table(name, "The number is the sum of these pieces.", rows))
    words = "".join(f"    0x{w:016X},\n" for w in two_over_pi(19))
    print(f"# the binary digits of 2/pi after 64 zeros\nTWO_OVER_PI = (\n{words})")
    print(table("ERFC", "The factor: -log(erfc(1 + x)).", {b: erfc_fit(b) for b in (32, 64)}))


if __name__ == "__main__":
    main()
