"""What the pictures of a folder are brought to: guessed from their headers, and said."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from couette.config import DataConfig
from couette.data.dataset import counted, extent
from couette.data.decode import Header, Look, color
from couette.errors import ConfigError

GUESSED_MOST = 32
_NICE = (32, 24, 16, 8)
_LARGEST = 4096


def choose_look(headers: Sequence[Header], config: DataConfig) -> tuple[Look, list[str]]:
    """The size, channels and background for these pictures, and notes on what was chosen.

    Raises:
        ConfigError: a resolution out of range, or an unknown background colour.
    """
    height, width = asked_size(config) or guessed_size(headers)
    background = color(config.background)
    notes = _size_notes(headers, height, width, config.size is None)
    transparent = sum(header.transparent for header in headers)
    if transparent:
        notes.append(
            f"{counted(transparent, 'picture')} with transparency laid on {config.background}."
        )
    if animated := sum(header.animated for header in headers):
        notes.append(f"Only the first frame was taken of {counted(animated, 'animation')}.")
    tinted = transparent and len(set(background)) > 1
    gray = all(header.gray for header in headers) and not tinted
    channels = 1 if config.color == "gray" or (config.color == "auto" and gray) else 3
    return Look(height, width, channels, background), notes


def asked_size(config: DataConfig) -> tuple[int, int] | None:
    """Height and width asked for, checked; None where they are to be guessed.

    Raises:
        ConfigError: a side that is not in 1..4096.
    """
    if config.size and not all(1 <= side <= _LARGEST for side in config.size):
        height, width = config.size
        raise ConfigError(
            f"A resolution of {extent(height, width)} was asked for; "
            f"sides go from 1 to {_LARGEST} pixels."
        )
    return config.size


def guessed_size(headers: Sequence[Header]) -> tuple[int, int]:
    """A size that a processor can train at.

    Pictures all of one size keep it, up to 32 pixels, where both sides divide by 4. Otherwise a
    square: the largest of 32, 24, 16 and 8 not above the median short side.
    """
    sizes = {(header.height, header.width) for header in headers}
    if len(sizes) == 1:
        height, width = next(iter(sizes))
        if max(height, width) <= GUESSED_MOST and height % 4 == 0 and width % 4 == 0:
            return height, width
    short = median(min(header.height, header.width) for header in headers)
    side = next((nice for nice in _NICE if nice <= short), _NICE[-1])
    return side, side


def _size_notes(headers: Sequence[Header], height: int, width: int, guessed: bool) -> list[str]:
    sizes = sorted(
        {(h.height, h.width) for h in headers}, key=lambda size: (size[0] * size[1], size)
    )
    if sizes == [(height, width)]:
        return []
    span = extent(*sizes[0]) if len(sizes) == 1 else f"{extent(*sizes[0])} to {extent(*sizes[-1])}"
    alike = all(h * width == w * height for h, w in sizes)
    how = "scaled" if alike else "scaled on the short side and centre-cropped"
    said = " (guessed; --data.resolution sets another size)" if guessed else ""
    notes = [f"Pictures of {span} were {how} to {extent(height, width)}{said}."]
    if small := sum(h.height < height or h.width < width for h in headers):
        notes.append(f"{counted(small, 'picture')} smaller than that had to be enlarged.")
    return notes
