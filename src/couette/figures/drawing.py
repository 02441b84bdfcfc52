"""From a topic to files: settings checked, everything drawn, then everything written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from couette.config import Spec
from couette.errors import InputError
from couette.figures.registry import FIGURES, NEEDS, Picture
from couette.figures.states import replaces
from couette.figures.target import Kind, Target
from couette.render import save, save_gif

_USUAL: dict[Kind, tuple[str, ...]] = {
    "run": (
        *("loss", "latents", "alike", "predictions", "sheet", "reverse", "real"),
        *("sigmas", "dye", "states"),
    ),
    "model": ("sheet", "reverse", "network"),
    "exact": ("likeness", "sheet", "reverse", "predictions", "dye"),
    "recipe": ("noising", "states", "schedule", "network", "dye"),
    "data": ("noising", "dye"),
    "nothing": ("noise", "random-variables", "schedule"),
}


class Shown(NamedTuple):
    """A file that was drawn, and what to say beside it."""

    path: Path
    notes: tuple[str, ...]


def topics_for(target: Target, *, usual: bool = False) -> list[str]:
    """The figures that can be drawn of a target.

    Args:
        usual: only those to draw when no topic was asked for.
    """
    topics = _USUAL[target.kind] if usual else FIGURES
    return [
        topic for topic in topics if target.lacks(NEEDS[topic]) is None and _about(target, topic)
    ]


def pictures(
    target: Target, topic: str, settings: Mapping[str, Any] | None = None
) -> list[Picture]:
    """Draw a figure, without writing it.

    Raises:
        UnknownName: no such topic.
        ConfigError: a setting that the figure does not have, or a value it can't take.
        InputError: a target that has not got what the figure needs.
        CouetteError: the target can't be read.
    """
    make = FIGURES[topic]
    if lack := target.lacks(NEEDS[topic]):
        raise InputError(f"'{topic}' {lack}")
    checked = FIGURES.check(Spec(name=topic, **(settings or {})))
    drawn: list[Picture] = make(target, **checked)
    return drawn


def draw(
    target: Target,
    topic: str,
    settings: Mapping[str, Any] | None,
    folder: Path,
    *,
    metadata: bool = True,
) -> list[Shown]:
    """Draw a figure and write it to `folder`, as `topic.png`, `topic-part.png` or `….gif`.

    Nothing is written unless all of it could be drawn.

    Args:
        metadata: keep in each PNG what made it.

    Raises:
        CouetteError: as `pictures`, and StorageError where the disk refuses.
    """
    made = pictures(target, topic, settings)
    text = {
        "couette": f"show {target.given} {topic}".replace("  ", " "),
        "settings": json.dumps({key: str(value) for key, value in (settings or {}).items()}),
    }
    return [_write(picture, topic, folder, text if metadata else {}) for picture in made]


def _write(picture: Picture, topic: str, folder: Path, text: Mapping[str, str]) -> Shown:
    stem = topic if picture.name == topic else f"{topic}-{picture.name}"
    if len(picture.frames) > 1:
        path = folder / f"{stem}.gif"
        save_gif(picture.frames, path, fps=picture.fps)
    else:
        path = folder / f"{stem}.png"
        save(picture.image, path, text=text)
    return Shown(path, picture.notes)


def _about(target: Target, topic: str) -> bool:
    """Whether a figure that could be drawn says something of this very target."""
    if topic in ("noise", "random-variables"):
        return target.kind == "nothing"
    if topic == "sigmas":
        return target.kind in ("data", "nothing") or target.one_step
    if topic == "states":
        return replaces(target) or target.kind == "data"
    if topic in ("noising", "predictions"):
        return not replaces(target)
    return topic != "compare"
