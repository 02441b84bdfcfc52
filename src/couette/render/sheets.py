"""Pictures in rows and columns, with words around them: every sheet that is not a plot.

Pictures are enlarged by a whole factor, each pixel a square. Words never overlap and are never cut:
a title is wrapped to its column, and a column widens for a word that is longer than it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import ceil, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from couette.errors import InputError, ShapeError
from couette.render.pixels import Pictures, Pixels, Range, enlarged, factor_for, to_rgb
from couette.render.style import ALARM
from couette.render.table import Cell, refuse_more, table

_MARGIN = 12
_GRID_CELL = 84
_STRIP_CELL = 96
_ROW_CELL = 40


def columns_for(classes: int) -> int | None:
    """How many columns a sheet of every class in turn has, so that each column is of one class:
    as many times the classes as go into ten or so; None without classes, or with too many."""
    if not 0 < classes <= 16:
        return None
    return classes * max(1, 10 // classes)


def grid(
    pictures: Pictures,
    *,
    columns: int | None = None,
    scale: int | None = None,
    pad: int | None = None,
    labels: Sequence[str] = (),
    column_titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    title: str = "",
    show: Range = "clip",
) -> Image.Image:
    """A sheet of pictures, row by row.

    Where no words are asked for, the picture of row r and column c has its corner at
    (pad + c·(scale·W + pad), pad + r·(scale·H + pad)).

    Args:
        pictures: (B, C, H, W), floats in [-1, 1] or uint8.
        columns: how many side by side; when not given, near the square root of B.
        scale: whole factor of enlargement; chosen from the size when not given.
        pad: pixels between and around pictures; `scale`, and at least 2, when not given.
        labels: words below each picture.

    Raises:
        ShapeError: no pictures, or of a shape that can't be shown.
        InputError: columns or scale below 1, pad below 0, or more words than places for them.
    """
    cells = to_rgb(pictures, show)
    count, height, width = cells.shape[:3]
    columns = (len(column_titles) or _across(count)) if columns is None else columns
    _at_least(1, columns=columns)
    factor = _factor(scale, height, width, _GRID_CELL, min(columns, count))
    pad = max(2, factor) if pad is None else pad
    _at_least(0, pad=pad)
    refuse_more(labels, count, "labels", "pictures")
    captions = [*labels, *[""] * (count - len(labels))]
    placed = [
        Cell(enlarged(picture, factor), caption)
        for picture, caption in zip(cells, captions, strict=True)
    ]
    rows = [placed[start : start + columns] for start in range(0, count, columns)]
    worded = any((labels, column_titles, row_titles, title))
    return table(
        rows,
        gap=max(pad, 8) if labels else pad,
        margin=max(pad, _MARGIN) if worded else pad,
        title=title,
        columns=column_titles,
        names=row_titles,
    )


def strip(
    rows: Mapping[str, Pictures],
    *,
    columns: Sequence[str] = (),
    stretch: Collection[str] = (),
    scale: int | None = None,
    title: str = "",
) -> Image.Image:
    """Named rows of pictures that belong together, column by column.

    Draws the forward process (one row, columns "t = 0", …), input / noised / predicted, a sweep
    over σ, clipped beside unclipped noising, or black-and-white beside RGB noise.

    Args:
        rows: a name ("" for none) to its pictures, in order; pictures of all rows have one size.
        columns: a title above each column.
        stretch: names of rows shown from their smallest to their largest value, not clipped.

    Raises:
        ShapeError: no rows, no pictures, or pictures that can't stand in one table.
        InputError: a name in `stretch` that is no row, scale below 1, or too many titles.
    """
    if unknown := sorted(set(stretch) - set(rows)):
        raise InputError(f"There is no row '{unknown[0]}' to stretch; rows: {', '.join(rows)}.")
    if not rows:
        raise ShapeError("There are no rows to show; give at least one.")
    cells = {
        name: to_rgb(pictures, "stretch" if name in stretch else "clip")
        for name, pictures in rows.items()
    }
    height, width = (max(row.shape[axis] for row in cells.values()) for axis in (1, 2))
    across = max(len(row) for row in cells.values())
    factor = _factor(scale, height, width, _STRIP_CELL, across)
    return table(
        [[Cell(enlarged(picture, factor)) for picture in row] for row in cells.values()],
        gap=6,
        margin=_MARGIN,
        title=title,
        columns=columns,
        names=list(rows) if any(rows) else (),
    )


def steps(
    rows: Sequence[Mapping[str, Pictures]],
    *,
    names: Sequence[str] = (),
    scale: int | None = None,
    title: str = "",
) -> Image.Image:
    """Batches in columns, one step a row: the model's input beside its prediction.

    Args:
        rows: one mapping a step, from the column's title to a batch, (B, C, H, W); the same
            titles in each, such as "x (model input)" and "model prediction".
        names: a name before each row.

    Raises:
        ShapeError: no steps, or a batch that can't be shown.
        InputError: steps with different titles, or scale below 1.
    """
    if not rows:
        raise ShapeError("There are no steps to show; give at least one.")
    titles = list(rows[0])
    if any(list(row) != titles for row in rows):
        raise InputError(f"Every step must have the columns {', '.join(titles)}, in that order.")
    batches = [[to_rgb(row[name]) for name in titles] for row in rows]
    height, width = batches[0][0].shape[1:3]
    across = sum(len(batch) for batch in batches[0])
    factor = _factor(scale, height, width, _ROW_CELL, across)
    return table(
        [[Cell(_joined(batch, factor)) for batch in row] for row in batches],
        gap=12,
        margin=_MARGIN,
        title=title,
        columns=titles,
        names=names,
    )


def nearest(
    generated: Pictures,
    training: Pictures,
    distances: ArrayLike,
    *,
    copies: ArrayLike | None = None,
    columns: int | None = None,
    scale: int | None = None,
    title: str = "",
) -> Image.Image:
    """Each generated picture (left) beside the training picture nearest to it (right).

    Args:
        generated, training: (B, C, H, W) each, in pairs.
        distances: (B,), written below each pair as d.
        copies: (B,) true where the pair counts as a copy: framed, and said in words.
        columns: pairs side by side.

    Raises:
        ShapeError: lengths or picture sizes that differ.
        InputError: columns or scale below 1.
    """
    left, right = to_rgb(generated), to_rgb(training)
    far = np.asarray(distances, dtype=np.float64)
    copied = np.zeros(len(left), dtype=bool) if copies is None else np.asarray(copies, dtype=bool)
    if left.shape != right.shape or not len(left) == len(far) == len(copied):
        raise ShapeError(
            f"{len(left)} generated pictures, {len(right)} training pictures, {len(far)} distances "
            f"and {len(copied)} marks don't pair up; give as many of each, of one size."
        )
    columns = min(len(left), 6) if columns is None else columns
    _at_least(1, columns=columns)
    factor = _factor(scale, left.shape[1], left.shape[2], 64, 2 * columns)
    pairs = [
        Cell(
            _joined(np.stack(pair), factor),
            f"d = {distance:.3g}, copy" if copy else f"d = {distance:.3g}",
            ALARM if copy else None,
        )
        for *pair, distance, copy in zip(left, right, far, copied, strict=True)
    ]
    rows = [pairs[start : start + columns] for start in range(0, len(pairs), columns)]
    return table(rows, gap=16, margin=_MARGIN, title=title)


def beside(sheets: Mapping[str, Image.Image], *, title: str = "") -> Image.Image:
    """Finished sheets side by side, each under its name: raw | averaged, epoch 1 | epoch 5.

    Raises:
        ShapeError: no sheets.
    """
    if not sheets:
        raise ShapeError("There are no sheets to compare; give at least one.")
    cells = [Cell(np.asarray(sheet.convert("RGB"))) for sheet in sheets.values()]
    return table([cells], gap=24, margin=_MARGIN, title=title, columns=list(sheets))


def _across(count: int) -> int:
    """Columns of a sheet without empty places, where one near the square exists."""
    least = ceil(sqrt(count))
    return next((n for n in range(least, 2 * least + 1) if count % n == 0), least)


def _joined(batch: Pixels, factor: int) -> Pixels:
    """A batch in one row, (B, H, W, 3) to one picture, with white between neighbours."""
    pictures = [enlarged(picture, factor) for picture in batch]
    between = np.full((pictures[0].shape[0], max(2, factor), 3), 255, dtype=np.uint8)
    parts: list[Any] = [pictures[0]]
    for picture in pictures[1:]:
        parts += [between, picture]
    return np.concatenate(parts, axis=1)


def _factor(scale: int | None, height: int, width: int, least: int, across: int) -> int:
    if scale is None:
        return factor_for(height, width, least=least, across=across)
    _at_least(1, scale=scale)
    return scale


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise InputError(f"{name} = {value} can't be drawn; give {least} or more.")
