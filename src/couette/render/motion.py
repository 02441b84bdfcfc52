"""The reverse process over time: frames for an animation, and a filmstrip of chosen moments."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from couette.errors import InputError, ShapeError
from couette.render.pixels import Pictures, Range, to_rgb
from couette.render.sheets import grid
from couette.render.style import PAPER
from couette.render.table import refuse_more


def spread(count: int, shown: int) -> list[int]:
    """At most `shown` of `range(count)`, evenly apart, with the first and the last among them."""
    if shown <= 1 or count <= 1:
        return [count - 1] if count else []
    return sorted({round(i) for i in np.linspace(0, count - 1, min(shown, count))})


def reverse_frames(
    batches: Sequence[Pictures],
    *,
    titles: Sequence[str] = (),
    columns: int | None = None,
    scale: int | None = None,
    show: Range = "clip",
) -> list[Image.Image]:
    """One sheet a moment, all of one size, for `save_gif`.

    Args:
        batches: the pictures at each moment, (B, C, H, W), from noise to the result.
        titles: a line above each frame, such as "t = 0.40".

    Raises:
        ShapeError: no moments, or pictures that can't be shown.
        InputError: more titles than moments.
    """
    if not batches:
        raise ShapeError("There are no moments to show; give at least one batch.")
    refuse_more(titles, len(batches), "titles", "moments")
    words = [*titles, *[""] * (len(batches) - len(titles))]
    frames = [
        grid(batch, columns=columns, scale=scale, title=title, show=show)
        for batch, title in zip(batches, words, strict=True)
    ]
    size = max(f.width for f in frames), max(f.height for f in frames)
    return [_filled(frame, size) for frame in frames]


def filmstrip(
    batches: Sequence[Pictures],
    *,
    titles: Sequence[str] = (),
    shown: int = 10,
    names: Sequence[str] = (),
    scale: int | None = None,
    title: str = "",
) -> Image.Image:
    """Moments in columns, pictures in rows: `shown` moments evenly apart, first and last included.

    Args:
        batches: the pictures at each moment, (B, C, H, W).
        titles: one a moment (not one a column shown).
        names: a name before each row.

    Raises:
        ShapeError: no moments, or batches of different lengths.
        InputError: another number of titles than of moments.
    """
    chosen = spread(len(batches), shown)
    moments: list[NDArray[np.uint8]] = [to_rgb(batches[i]) for i in chosen]
    if not moments or len({moment.shape for moment in moments}) > 1:
        raise ShapeError("A filmstrip needs at least one moment, with as many pictures in each.")
    rows = [[moment[i].transpose(2, 0, 1) for moment in moments] for i in range(len(moments[0]))]
    pictures = [picture for row in rows for picture in row]
    if titles and len(titles) != len(batches):
        raise InputError(f"{len(titles)} titles for {len(batches)} moments; give one each or none.")
    heads = [titles[i] for i in chosen] if titles else ()
    return grid(
        pictures,
        columns=len(chosen),
        scale=scale,
        column_titles=heads,
        row_titles=names,
        title=title,
    )


def _filled(frame: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The frame on paper of the given size."""
    whole = Image.new("RGB", size, PAPER)
    whole.paste(frame, (0, 0))
    return whole
