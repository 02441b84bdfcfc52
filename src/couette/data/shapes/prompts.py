"""Captions of scenes, and prompts to measure a model by, each with what it asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple, get_args

from couette.data.shapes.asking import Asked, tell
from couette.data.shapes.composing import SEEN, Kind, Split, compose
from couette.data.shapes.dice import Draws, dice
from couette.data.shapes.scenes import Scene
from couette.data.shapes.vocabulary import HELD_OUT
from couette.data.shapes.wording import say
from couette.errors import ConfigError, UnknownName

PromptKind = Literal["seen", "one", "two", "count", "relation", "held-out"]
KINDS: tuple[PromptKind, ...] = get_args(PromptKind)

_WORDS = 48


class Prompt(NamedTuple):
    """Words, what they ask for, and a scene of which they are true."""

    text: str
    asked: Asked
    scene: Scene


def captions(
    made: Sequence[Scene],
    indices: range,
    *,
    seed: int = 0,
    split: Split = Split.TRAIN,
    wording: int = 0,
) -> Iterator[str]:
    """One caption for each scene, true of it.

    Args:
        made: the scenes.
        indices: theirs, as given to `compose`.
        seed, split: theirs.
        wording: another number gives other captions of the same scenes, from 0.
    """
    rolled = dice(seed, indices, split, Draws.CAPTION + wording, _WORDS)
    for scene, rolls in zip(made, rolled, strict=True):
        yield say(tell(scene, rolls), rolls)


def prompts(kind: PromptKind, count: int, seed: int = 0) -> list[Prompt]:
    """Prompts of which colour and shape of every object are part.

    Args:
        kind: "seen": worded and mixed as the captions are; "one", "two": of one object, of two that
            differ; "count": two to four alike; "relation": two, and how they lie; "held-out": one
            object of a colour and a shape that are never drawn together to train on.
        count: how many; those of a larger count begin with those of a smaller.
        seed: another seed gives other prompts.

    Raises:
        UnknownName: no such kind.
        ConfigError: a count below 0.
    """
    if kind not in KINDS:
        raise UnknownName("kind of prompt", kind, KINDS)
    if count < 0:
        raise ConfigError(f"{count} prompts were asked for; give a count of 0 or more.")
    of: dict[str, Kind] = {
        "one": "one",
        "two": "two",
        "count": "several",
        "relation": "two",
        "held-out": "one",
    }
    pairs = sorted(HELD_OUT) if kind == "held-out" else SEEN
    indices = range(count)
    stream = Draws.PROMPT + 2 * KINDS.index(kind)
    made = compose(indices, seed=seed, kind=of.get(kind), pairs=pairs, stream=stream)
    found = []
    for scene, rolls in zip(made, dice(seed, indices, 0, stream + 1, _WORDS), strict=True):
        asked = tell(scene, rolls, whole=True, related=kind == "relation")
        found.append(Prompt(say(asked, rolls), asked, scene))
    return found
