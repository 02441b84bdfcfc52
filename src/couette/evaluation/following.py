"""Whether pictures show what their prompts ask for, read off them without a learned judge."""

from __future__ import annotations

from collections.abc import Sequence

from couette.config import SamplingConfig
from couette.contracts import Ask
from couette.data import Progress
from couette.data.shapes import KINDS, PromptKind, Reading, Tally, judge, prompts, read, tally
from couette.errors import InputError
from couette.generate import pictures
from couette.model import Model


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
