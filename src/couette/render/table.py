"""A table of pictures with words around it: the layout that all sheets share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from PIL import Image, ImageDraw

from couette.errors import InputError
from couette.render.pixels import Pixels
from couette.render.style import INK, PAPER, SHEET_TEXT, font, plain

_SPACE = SHEET_TEXT // 2
_ROW_TITLE = 12 * SHEET_TEXT
_TITLE = 24 * SHEET_TEXT
_FRAME = 3


class Cell(NamedTuple):
    """One place of the table: a picture (H, W, 3), words below it, a coloured frame around it."""

    picture: Pixels
    caption: str = ""
    frame: str | None = None


@dataclass(frozen=True)
class _Text:
    """Wrapped words and the room they take."""

    words: str
    bold: bool = False

    @property
    def size(self) -> tuple[int, int]:
        return _measure(self.words, self.bold)

    def draw(self, draw: ImageDraw.ImageDraw, x: int, y: int, anchor: str = "m") -> None:
        """Write with the top at `y`; `x` is the left end, the middle or the right end (l, m, r)."""
        if not self.words:
            return
        align = {"l": "left", "m": "center", "r": "right"}[anchor]
        left = x - {"l": 0, "m": self.size[0] // 2, "r": self.size[0]}[anchor]
        face = font(bold=self.bold)
        box = draw.multiline_textbbox((0, 0), self.words, font=face, align=align, spacing=4)
        place = (left - box[0], y)
        draw.multiline_text(place, self.words, INK, font=face, align=align, spacing=4)


def table(
    rows: Sequence[Sequence[Cell | None]],
    *,
    gap: int,
    margin: int,
    title: str = "",
    columns: Sequence[str] = (),
    names: Sequence[str] = (),
) -> Image.Image:
    """Lay out cells in rows.

    Args:
        rows: cells, None for an empty place; rows may differ in length.
        gap: pixels between cells. margin: pixels around everything.
        title: above everything. columns: a title above each column. names: one before each row.

    Raises:
        InputError: more titles than columns, or more names than rows.
    """
    count = max(len(row) for row in rows)
    refuse_more(columns, count, "column titles", "columns")
    refuse_more(names, len(rows), "row titles", "rows")
    widths = [_column_width(rows, columns, i) for i in range(count)]
    heads = [_wrapped(text, width) for text, width in zip(columns, widths, strict=False)]
    sides = [_wrapped(name, _ROW_TITLE) for name in names]
    heights = [_row_height(row, widths, side) for row, side in _padded(rows, sides)]

    left = margin + _spaced(max((side.size[0] for side in sides), default=0))
    right = left + sum(widths) + gap * (count - 1)
    top_title = _wrapped(title, max(right - margin, _TITLE), bold=True)
    head = max((text.size[1] for text in heads), default=0)
    under_title = margin + _spaced(top_title.size[1])
    top = under_title + _spaced(head)
    width = max(right, margin + top_title.size[0]) + margin
    height = top + sum(heights) + gap * (len(rows) - 1) + margin

    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    top_title.draw(draw, margin, margin, "l")
    lefts = [left + sum(widths[:i]) + gap * i for i in range(count)]
    for text, x, wide in zip(heads, lefts, widths, strict=False):
        text.draw(draw, x + wide // 2, under_title + head - text.size[1])
    y = top
    for (row, side), high in zip(_padded(rows, sides), heights, strict=True):
        tallest = max((cell.picture.shape[0] for cell in row if cell), default=0)
        side.draw(draw, left - _SPACE, y + max(0, tallest - side.size[1]) // 2, "r")
        for cell, x, wide in zip(row, lefts, widths, strict=False):
            if cell is not None:
                _place(sheet, draw, cell, x, y, wide)
        y += high + gap
    return sheet


def refuse_more(words: Sequence[str], count: int, what: str, places: str) -> None:
    """Raise InputError where there are more words than places for them."""
    if len(words) > count:
        raise InputError(f"There are {len(words)} {what} for {count} {places}; give one each.")


def _place(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, cell: Cell, x: int, y: int, wide: int
) -> None:
    high, across = cell.picture.shape[:2]
    x += (wide - across) // 2
    sheet.paste(Image.fromarray(cell.picture), (x, y))
    if cell.frame:
        # Outside the picture, so that none of its pixels is hidden.
        box = (x - _FRAME, y - _FRAME, x + across + _FRAME - 1, y + high + _FRAME - 1)
        draw.rectangle(box, outline=cell.frame, width=_FRAME)
    _wrapped(cell.caption, wide).draw(draw, x + across // 2, y + high + _SPACE // 2)


def _padded(
    rows: Sequence[Sequence[Cell | None]], sides: Sequence[_Text]
) -> list[tuple[Sequence[Cell | None], _Text]]:
    return [(row, sides[i] if i < len(sides) else _Text("")) for i, row in enumerate(rows)]


def _column_width(rows: Sequence[Sequence[Cell | None]], columns: Sequence[str], index: int) -> int:
    """The widest picture of a column, or the longest word above or below one."""
    cells = [row[index] for row in rows if index < len(row)]
    texts = [cell.caption for cell in cells if cell] + list(columns[index : index + 1])
    widest = max((cell.picture.shape[1] for cell in cells if cell), default=0)
    return max(widest, *(_wrapped(text, widest).size[0] for text in texts), 0)


def _row_height(row: Sequence[Cell | None], widths: Sequence[int], side: _Text) -> int:
    heights = [side.size[1]]
    for cell, width in zip(row, widths, strict=False):
        if cell is not None:
            words = _wrapped(cell.caption, width).size[1]
            heights.append(cell.picture.shape[0] + (words + _SPACE if words else 0))
    return max(heights)


def _spaced(extent: int) -> int:
    return extent + _SPACE if extent else 0


def _wrapped(text: str, width: int, bold: bool = False) -> _Text:
    """The text broken at spaces so that each line is at most `width` pixels, if words allow it."""
    lines = []
    for paragraph in plain(text).split("\n"):
        line = ""
        for word in paragraph.split(" "):
            longer = f"{line} {word}" if line else word
            if line and _measure(longer, bold)[0] > width:
                lines.append(line)
                line = word
            else:
                line = longer
        lines.append(line)
    return _Text("\n".join(lines), bold)


def _measure(words: str, bold: bool = False) -> tuple[int, int]:
    """Width of the inked box; height by whole lines, so that neighbours stand on one baseline."""
    if not words:
        return 0, 0
    face = font(bold=bold)
    draw = ImageDraw.Draw(Image.new("L", (1, 1)))
    box = draw.multiline_textbbox((0, 0), words, font=face, spacing=4)
    ascent, descent = face.getmetrics()
    lines = words.count("\n") + 1
    return ceil(box[2] - box[0]), lines * (ascent + descent + 4) - 4
