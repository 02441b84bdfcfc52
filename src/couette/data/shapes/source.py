"""The scenes as a data set: `couette train shapes`."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from couette.config import DataConfig
from couette.data.dataset import Dataset, Progress, Splits, counted, splits
from couette.data.shapes.composing import Split, compose
from couette.data.shapes.drawing import check_resolution, draw
from couette.data.shapes.prompts import captions
from couette.data.shapes.vocabulary import HELD_OUT
from couette.data.sizing import asked_size
from couette.errors import ConfigError, DataError
from couette.registry import DATASETS

COUNT, TEST = 20_000, 2_000
"""How many scenes are drawn when no limit is set, to train on and for evaluation."""
RESOLUTION = 32
_AT_ONCE = 1024


@DATASETS.register("shapes")
def shapes(config: DataConfig, progress: Progress | None = None) -> Splits:
    """Drawn scenes with captions: "a red circle above a blue square", 32×32 or as asked.

    One object, two that differ, or two to four alike, of eight shapes, eight colours and three
    sizes, on four backgrounds. There is no end of them: 20,000 are drawn to train on, or as many as
    `limit` says. Eight pairs of a colour and a shape are kept out, so that combinations that were
    never seen can be asked for; a reader (`couette.data.shapes.read`) tells what a picture shows.

    Raises:
        ConfigError: a resolution that is not square or not in 16..256; flips, crops or gray, which
            would make the captions untrue; or more pictures than `memory_gb` holds.
        DataError: a limit below two.
    """
    side = _checked(config)
    count = config.limit or COUNT
    notes = [
        f"{counted(len(HELD_OUT), 'pair')} of a colour and a shape are in no picture: "
        f"{', '.join(' '.join(pair) for pair in sorted(HELD_OUT))}.",
    ]
    train = drawn(count, side, split=Split.TRAIN, progress=progress)
    test = drawn(min(count, TEST), side, split=Split.TEST, progress=progress)
    return splits(train, test, notes)


def drawn(
    count: int,
    resolution: int = RESOLUTION,
    *,
    seed: int = 0,
    split: Split = Split.TRAIN,
    progress: Progress | None = None,
) -> Dataset:
    """The first `count` scenes of a seed and a split, drawn, each with one caption.

    Scene i is the same at any count and resolution.

    Raises:
        ConfigError: a resolution that is not in 16..256.
    """
    check_resolution(resolution)
    values = torch.empty((count, resolution, resolution, 3), dtype=torch.uint8)
    texts: list[str] = []
    for indices in _parts(count):
        made = list(compose(indices, seed=seed, split=split))
        values[indices.start : indices.stop] = draw(made, resolution)
        texts += captions(made, indices, seed=seed, split=split)
        if progress:
            progress("drawing", indices.stop, count)
    return Dataset("shapes", values, texts=tuple(texts))


def _checked(config: DataConfig) -> int:
    """The side of the pictures; refuses what these scenes can't be."""
    height, width = asked_size(config) or (RESOLUTION, RESOLUTION)
    if height != width:
        raise ConfigError(
            f"'shapes' is drawn in squares, not {width} wide × {height} high; give one number as "
            "the resolution."
        )
    check_resolution(height)
    if config.flip or config.crop:
        raise ConfigError(
            "The captions of 'shapes' say where things lie, which flips and crops would change; "
            "leave out --data.flip and --data.crop."
        )
    if config.color == "gray":
        raise ConfigError(
            "The captions of 'shapes' say colours, which gray pictures have not got; leave out "
            "--data.color."
        )
    count = config.limit or COUNT
    if count < 2:
        raise DataError("A limit of 1 leaves too few scenes of 'shapes'; two are needed.")
    needed = 3e-9 * height * width * (count + min(count, TEST))
    if needed > config.memory_gb:
        raise ConfigError(
            f"{count:,} scenes of {height}×{height} need {needed:.1f} GB, more than the "
            f"{config.memory_gb:g} of --data.memory-gb; raise it, or lower --data.limit or "
            "--data.resolution."
        )
    return height


def _parts(count: int) -> Iterator[range]:
    for start in range(0, count, _AT_ONCE):
        yield range(start, min(start + _AT_ONCE, count))
