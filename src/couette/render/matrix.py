"""A table of numbers as colours, with the numbers written in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from couette.errors import ShapeError
from couette.render.style import TEXT, drawn, label, panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST = 24
"""Rows or columns above which numbers would no longer be read."""


@drawn
def matrix(
    values: ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    title: str = "",
    low: float | None = None,
    high: float | None = None,
) -> Figure:
    """A cell for each value, the darker the higher.

    Args:
        values: (R, C).
        rows, columns: their names.
        low, high: the ends of the colours; those of the values when not given.

    Raises:
        ShapeError: no values, or not as many names.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.shape != (len(rows), len(columns)) or not table.size:
        raise ShapeError(
            f"A table of {len(rows)} rows and {len(columns)} columns can't show values of "
            f"{table.shape}."
        )
    figure, (axes,) = panels(1, 1, height=1.6 + 0.42 * len(rows))
    low = float(np.nanmin(table)) if low is None else low
    high = float(np.nanmax(table)) if high is None else high
    axes.imshow(table, cmap="Blues", vmin=low, vmax=high, aspect="auto")
    axes.grid(visible=False)
    axes.set_xticks(range(len(columns)), [label(each) for each in columns], rotation=30, ha="right")
    axes.set_yticks(range(len(rows)), [label(each) for each in rows])
    if max(table.shape) <= _MOST:
        middle = (low + high) / 2
        for (row, column), value in np.ndenumerate(table):
            colour = "white" if value > middle else "black"
            place: dict[str, Any] = {
                "ha": "center",
                "va": "center",
                "color": colour,
                "fontsize": TEXT - 1,
            }
            axes.text(column, row, f"{value:.2f}", **place)
    axes.set_title(label(title))
    return figure
