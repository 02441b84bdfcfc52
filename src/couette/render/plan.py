"""A network drawn as the U it is: down on the left, the narrowest part below, up on the right."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from math import log2
from typing import TYPE_CHECKING, NamedTuple, Protocol

from couette.errors import ShapeError
from couette.render.style import COLOURS, TEXT, drawn, font, label, panels, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches; the figure's data coordinates are inches too, from its top left corner downward.
_WIDTH, _ROW, _TOP, _BOTTOM = 9.0, 0.52, 0.75, 0.3
_LEFT, _MIDDLE, _RIGHT = 3.2, 4.5, 5.8
_WIDEST, _NARROWEST = 1.0, 0.1
_TALLEST, _FLATTEST = 0.4, 0.1
_LONE_LINES = 2
_NAME_ROOM = 2.25
_SHADE = "#f4f5f7"


class Block(Protocol):
    """A row of a network's plan: what a block puts out, and what it holds.

    Height and width are None for a vector, all three where the block did not run.
    """

    @property
    def name(self) -> str: ...
    @property
    def channels(self) -> int | None: ...
    @property
    def height(self) -> int | None: ...
    @property
    def width(self) -> int | None: ...
    @property
    def parameters(self) -> int: ...


class _Placed(NamedTuple):
    """A block, the column of the U it stands in, and its line from the top."""

    block: Block
    column: float
    line: int


class _Band(NamedTuple):
    """The lines of one resolution; in the first `facing` of them blocks stand left and right."""

    text: str
    first: int
    lines: int
    facing: int


@drawn
def network_plan(blocks: Sequence[Block], *, title: str = "") -> Figure:
    """The blocks of a network in the order of its forward pass, down, across and up.

    A box is as wide as its block has channels and as tall as its output has resolution (by
    doublings). Bands join blocks of one resolution. Blocks beside the path, whose output has no
    extent while their neighbours' have (the embedding of the time), are listed below it.

    Args:
        blocks: objects with name, channels, height, width (of the output) and parameters.

    Raises:
        ShapeError: no blocks.
    """
    if not blocks:
        raise ShapeError("There are no blocks to draw; give at least one.")
    down, bottom, up, aside = _parts(blocks)
    placed, bands, lines = _lay_out(down, bottom, up)
    sided = bool(down or up)
    height = _TOP + _ROW * (lines + len(aside)) + _BOTTOM + 0.25 * bool(aside)
    figure, (axes,) = panels(1, 1, width=_WIDTH, height=height)
    figure.set_layout_engine("none")
    axes.set_position((0, 0, 1, 1))
    axes.set(xlim=(0, _WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    total = f"{sum(block.parameters for block in blocks):,} parameters"
    axes.text(0.25, 0.35, label(title, 52), fontsize=TEXT + 2, va="center")
    axes.text(_WIDTH - 0.25, 0.35, total, ha="right", va="center", fontsize=TEXT)
    _draw_path(axes, placed)
    for band in bands:
        _draw_band(axes, band)
    for item in placed:
        _draw_block(axes, item, blocks, lone=sided and item.column == _MIDDLE)
    for i, block in enumerate(aside):
        y = _TOP + _ROW * (lines + i + 0.5) + 0.25
        words = f"beside the path: {_short(block.name)} · {_held(block)}"
        axes.text(_MIDDLE, y, label(words), ha="center", va="center", fontsize=TEXT - 1)
    return figure


def _parts(
    blocks: Sequence[Block],
) -> tuple[list[Block], list[Block], list[Block], list[Block]]:
    """Down, bottom, up, and what stands beside the path.

    Vectors and blocks that did not run stand beside it, and so do 1 × 1 outputs away from the
    bottom; a network of nothing but vectors has them as its path.
    """
    path = [block for block in blocks if block.height and block.width] or list(blocks)
    areas = [_area(block) for block in path]
    largest = areas.index(max(areas))
    first = areas.index(min(areas[largest:]), largest)
    last = first
    while last + 1 < len(path) and areas[last + 1] == areas[first]:
        last += 1
    bottom = path[first : last + 1]
    down, up = (
        [block for block in side if _area(block) > 1] for side in (path[:first], path[last + 1 :])
    )
    drawn_ones = {id(block) for block in (*down, *bottom, *up)}
    return down, bottom, up, [block for block in blocks if id(block) not in drawn_ones]


def _lay_out(
    down: Sequence[Block], bottom: Sequence[Block], up: Sequence[Block]
) -> tuple[list[_Placed], list[_Band], int]:
    """Places in the order of the forward pass, the bands behind them, and the lines in all.

    Blocks of one resolution face each other, so a side with fewer of them has lines left empty. The
    narrowest blocks go down and up too, around the one that stands alone at the bottom.
    """
    if not down and not up:
        stack = [_Placed(block, _MIDDLE, i) for i, block in enumerate(bottom)]
        return stack, [_Band(_size(bottom[0]), 0, len(stack), 0)], len(stack)
    before, lone, after = _turn(bottom)
    down, up = [*down, *before], [*after, *up]
    left: list[_Placed] = []
    right: list[_Placed] = []
    bands: list[_Band] = []
    line = 0
    for area in sorted({_area(block) for block in (*down, *up)}, reverse=True):
        falling = [block for block in down if _area(block) == area]
        rising = [block for block in up if _area(block) == area]
        lowest = max(len(falling), len(rising))
        left += [_Placed(block, _LEFT, line + i) for i, block in enumerate(falling)]
        right += [_Placed(block, _RIGHT, line + i) for i, block in enumerate(reversed(rising))]
        bands.append(_Band(_size((falling or rising)[0]), line, lowest, lowest))
        line += lowest
    if lone is not None:
        left.append(_Placed(lone, _MIDDLE, line))
        if before or after:
            bands[-1] = bands[-1]._replace(lines=bands[-1].lines + _LONE_LINES)
        else:
            bands.append(_Band(_size(bottom[0]), line, _LONE_LINES, 0))
        line += _LONE_LINES
    return [*left, *reversed(right)], bands, line


def _turn(bottom: Sequence[Block]) -> tuple[Sequence[Block], Block | None, Sequence[Block]]:
    """Where the narrowest blocks turn: at the one named "mid…", else halfway, at a block if odd."""
    half = len(bottom) // 2
    named = [i for i, block in enumerate(bottom) if block.name.lower().startswith("mid")]
    if named or len(bottom) % 2:
        at = named[0] if named else half
        return bottom[:at], bottom[at], bottom[at + 1 :]
    return bottom[:half], None, bottom[half:]


def _draw_band(axes: Axes, band: _Band) -> None:
    """The shade behind one resolution, which stands between its blocks, or else at the left."""
    from matplotlib.patches import Rectangle

    top, high = _TOP + _ROW * band.first + 0.03, _ROW * band.lines - 0.06
    axes.add_patch(Rectangle((0.2, top), _WIDTH - 0.4, high, color=_SHADE, lw=0, zorder=0))
    x, lines = (_MIDDLE, band.facing) if band.facing else (0.7, band.lines)
    axes.text(
        x, _TOP + _ROW * (band.first + lines / 2), band.text, ha="center", va="center",
        fontsize=TEXT - 1, color="#5a6068",
        bbox={"facecolor": _SHADE, "edgecolor": "none", "pad": 2},
    )  # fmt: skip


def _draw_path(axes: Axes, placed: Sequence[_Placed]) -> None:
    """A line along the forward pass: straight down, straight across, straight up."""
    xs, ys = [placed[0].column], [_height(placed[0])]
    for before, after in itertools.pairwise(placed):
        falls = after.column <= _MIDDLE
        xs += [before.column if falls else after.column, after.column]
        ys += [_height(after) if falls else _height(before), _height(after)]
    axes.plot(xs, ys, color="#b9bec4", lw=1.2, zorder=1)


def _draw_block(axes: Axes, item: _Placed, blocks: Sequence[Block], *, lone: bool) -> None:
    from matplotlib.patches import FancyBboxPatch

    block, x, y = item.block, item.column, _height(item)
    wide = max(
        _NARROWEST, _WIDEST * (block.channels or 0) / max(1, *(b.channels or 0 for b in blocks))
    )
    share = (log2(_area(block)) + 2) / (log2(max(_area(b) for b in blocks)) + 2)
    tall = _FLATTEST + (_TALLEST - _FLATTEST) * share
    colour = {_LEFT: COLOURS[0], _MIDDLE: COLOURS[1], _RIGHT: COLOURS[2]}[item.column]
    axes.add_patch(
        FancyBboxPatch(
            (x - wide / 2, y - tall / 2), wide, tall, boxstyle="round,pad=0,rounding_size=0.03",
            facecolor=colour, edgecolor="white", lw=0.8, zorder=2,
        )
    )  # fmt: skip
    away = _WIDEST / 2 + 0.12
    if lone:
        at, align, y = x, "center", y + 0.42
    else:
        at, align = (x - away, "right") if item.column == _LEFT else (x + away, "left")
    axes.text(at, y - 0.1, label(_short(block.name)), ha=align, va="center", fontsize=TEXT - 1)
    axes.text(at, y + 0.11, _held(block), ha=align, va="center", fontsize=TEXT - 2, color="#5a6068")


def _height(item: _Placed) -> float:
    return _TOP + _ROW * (item.line + 0.5)


def _short(name: str) -> str:
    """The name, its end left out where it is longer than the room beside a box."""
    whole = plain(name)
    length = len(whole)
    while _inches(whole[:length]) > _NAME_ROOM:
        length -= 1
    return whole if length == len(whole) else whole[: length - 1] + "…"


def _inches(text: str) -> float:
    return font(100).getlength(text) / 100 * (TEXT - 1) / 72


def _held(block: Block) -> str:
    """What comes out of the block, where known, and its parameters."""
    wide = block.channels
    out = "" if wide is None else "1 channel · " if wide == 1 else f"{wide:,} channels · "
    return f"{out}{block.parameters:,} parameters"


def _area(block: Block) -> int:
    """Pixels of the output; 1 for a vector."""
    return max(1, (block.height or 1) * (block.width or 1))


def _size(block: Block) -> str:
    return f"{block.height} × {block.width}" if block.height and block.width else "vectors"
