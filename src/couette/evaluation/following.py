"""Whether pictures show what their prompts ask for, read off them without a learned judge."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from math import hypot
from typing import NamedTuple

from couette.config import SamplingConfig
from couette.contracts import Ask
from couette.data import Progress
from couette.data.shapes import (
    KINDS,
    SEEN,
    PromptKind,
    Reading,
    Tally,
    compose,
    judge,
    prompts,
    read,
    tally,
)
from couette.errors import InputError
from couette.generate import pictures
from couette.model import Model

VARIED = 8, 24
"""Prompts that are drawn again and again, to see how varied that is, and how often each is."""


def following(
    model: Model,
    *,
    count: int = 200,
    kinds: Sequence[PromptKind] = KINDS,
    seed: int = 0,
    batch: int = 64,
    sampling: SamplingConfig | None = None,
    progress: Progress | None = None,
) -> dict[PromptKind, dict[str, Tally]]:
    """How often a model draws what prompts about `shapes` ask for.

    Args:
        model: reads words, and was trained on `shapes`.
        count: prompts of each kind, a picture each.
        kinds: of prompts, as in `couette.data.shapes.prompts`.
        seed: of the prompts and of the pictures.
        batch: pictures drawn at once.
        sampling: the model's own when not given.
        progress: called as pictures are drawn.

    Returns:
        For each kind of prompt, for each attribute that was asked for, how many were right.

    Raises:
        InputError: a model that reads no words.
    """
    if model.conditioner.words is None:
        raise InputError("This model reads no words, so there is no prompt for it to follow.")
    found: dict[PromptKind, dict[str, Tally]] = {}
    for kind in kinds:
        asked = prompts(kind, count, seed)
        texts = [Ask(words=each.text) for each in asked]
        readings: list[Reading] = []
        for drawn in pictures(model, texts, seed=seed, batch=batch, sampling=sampling):
            readings += read(drawn)
            if progress:
                progress(f"drawing prompts: {kind}", len(readings), count)
        found[kind] = tally(
            judge(each.asked, seen) for each, seen in zip(asked, readings, strict=True)
        )
    return found


class Variety(NamedTuple):
    """How much pictures of one prompt differ in what it leaves open.

    background, size: the share of pairs of pictures that differ in it. place: the mean distance
    between the objects of a pair, in shares of the picture's side.
    """

    background: float
    size: float
    place: float


Look = tuple[str | None, str | None, float, float]
"""What a picture of one object shows: background, size, x, y."""


def variety(
    model: Model,
    *,
    count: int = VARIED[0],
    each: int = VARIED[1],
    seed: int = 0,
    batch: int = 64,
    sampling: SamplingConfig | None = None,
    progress: Progress | None = None,
) -> tuple[Variety, Variety]:
    """How varied a model draws what prompts leave open: "a red circle", and no more.

    Pictures that show something else than one such object are left out.

    Args:
        count: prompts, of colours and shapes that are drawn together.
        each: pictures of each prompt.

    Returns:
        Of the model's pictures, and of as many scenes as they are drawn to train on.

    Raises:
        InputError: a model that reads no words.
    """
    pairs = SEEN[:: max(1, len(SEEN) // count)][:count]
    asked = [Ask(words=f"a {color} {shape}") for color, shape in pairs for _ in range(each)]
    readings: list[Reading] = []
    for drawn in pictures(model, asked, seed=seed, batch=batch, sampling=sampling):
        readings += read(drawn)
        if progress:
            progress("drawing one prompt again and again", len(readings), len(asked))
    seen, scenes = [], []
    for i, pair in enumerate(pairs):
        looks = []
        for reading in readings[i * each : (i + 1) * each]:
            if [(thing.color, thing.shape) for thing in reading.objects] == [pair]:
                (thing,) = reading.objects
                looks.append((reading.background, thing.size, thing.x, thing.y))
        seen.append(looks)
        made = compose(range(i * each, (i + 1) * each), seed=seed, kind="one", pairs=[pair])
        scenes.append([(s.background, t.size, t.x, t.y) for s in made for t in s.things])
    return varied(seen), varied(scenes)


def varied(prompts: Iterable[Sequence[Look]]) -> Variety:
    """The variety of pictures, prompt by prompt; 0 where no prompt has two of them."""
    pairs = [pair for looks in prompts for pair in combinations(looks, 2)]
    if not pairs:
        return Variety(0.0, 0.0, 0.0)
    count = len(pairs)
    return Variety(
        sum(a[0] != b[0] for a, b in pairs) / count,
        sum(a[1] != b[1] for a, b in pairs) / count,
        sum(hypot(a[2] - b[2], a[3] - b[3]) for a, b in pairs) / count,
    )
