"""What a training did, as a table: a row for each epoch, and for evaluations in between."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from fluxc.compiler.errors import FluxcError

__all__ = ["History"]

_PLACES = ("epoch", "step")
_APART = (*_PLACES, "seconds")  # not plotted


class History:
    """The rows of a training: dicts from a column's name to a number.

    `history["loss"]` is a column as an array, NaN where a row lacks it.  Columns are epoch and step
    (both count what is done), loss, the metrics', the evaluations', and seconds.
    """

    def __init__(self, rows: list[dict[str, Any]] | None = None) -> None:
        self.rows: list[dict[str, Any]] = [] if rows is None else rows

    @property
    def columns(self) -> list[str]:
        """The names of the columns; seconds come last."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return [n for n in names if n != "seconds"] + ["seconds"] * ("seconds" in names)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, column: str) -> np.ndarray:
        if column not in self.columns:
            raise FluxcError(
                f"the history has no column {column!r}",
                expected=", ".join(self.columns) or "no rows yet",
            )
        return np.array([row.get(column, np.nan) for row in self.rows])

    def table(self) -> str:
        """The rows as text, in aligned columns."""
        lines = [self.columns, *([_text(row.get(c)) for c in self.columns] for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(f"{cell:>{w}}" for cell, w in zip(line, widths, strict=True))
            for line in lines
        )

    __str__ = table

    def csv(self, path: str | Path | None = None) -> str:
        """The rows as CSV, every number exactly; written to a file if there is a path."""
        out = io.StringIO()
        writer = csv.DictWriter(out, self.columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        if path is not None:
            Path(path).write_text(out.getvalue(), "utf-8")
        return out.getvalue()

    def plot(self, path: str | Path, columns: list[str] | None = None) -> None:
        """Draw columns over steps into a file (png, svg, pdf); by default all that were measured.

        Errors  FluxcError without matplotlib, which `pip install 'fluxc[plot]'` brings.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise FluxcError(
                "a plot needs matplotlib", got=str(error), hint="pip install 'fluxc[plot]'"
            ) from error
        figure = Figure(layout="constrained")
        axes = figure.subplots()
        steps = self["step"]
        for name in [c for c in self.columns if c not in _APART] if columns is None else columns:
            values = self[name]
            known = ~np.isnan(values)
            axes.plot(steps[known], values[known], label=name, marker=".")
        axes.set_xlabel("step")
        if axes.lines:
            axes.legend()
        figure.savefig(path)

    def __repr__(self) -> str:
        return f"History({len(self)} rows: {', '.join(self.columns)})"


def _text(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
