"""What each picture is to show, from what a user asks for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from couette.conditioners import NO_WORDS, Labels, Words
from couette.config import SamplingConfig
from couette.contracts import Ask
from couette.errors import InputError
from couette.guidance import GUIDANCE
from couette.model import Model, load_classifier
from couette.opening import opened
from couette.runs import find_model


def ask(
    model: Model,
    count: int,
    label: int | str | Sequence[int | str] | None = None,
    sampling: SamplingConfig | None = None,
    prompt: str | Sequence[str] | None = None,
    toward: str | None = None,
    weight: float | Sequence[float] | None = None,
) -> list[Ask]:
    """What each of `count` pictures is asked to show.

    Args:
        model: the model, which knows its classes.
        count: how many pictures.
        label: a class by name or number for all, "each" for every class in turn, one per
            picture, or None for anything.
        sampling: how they will be drawn; a classifier brings its classes to a model without.
        prompt: words for all, or several prompts, which the pictures take in turn.
        toward: words to go part of the way to, from those of the prompt.
        weight: how much of the way, 0 to 1, half of it when not given; several are taken in turn.

    Raises:
        InputError: no pictures, an unknown label, not one label per picture, words for a model
            that reads none, or a weight outside 0 to 1 or with nothing to go toward.

    Warns:
        WordsCut: words longer than what the model reads.
    """
    if weight is not None and toward is None:
        raise InputError("A weight says how far to go toward other words; give those, too.")
    if count < 1:
        raise InputError(f"The count of pictures is at least 1, not {count}.")
    asked = _labelled(model, count, label, sampling)
    prompts = [prompt] if isinstance(prompt, str) else list(prompt or ())
    if not prompts and toward is None:
        return asked
    if model.conditioner.words is None:
        raise InputError(NO_WORDS)
    _no_more(prompts, "prompts", count)
    if isinstance(model.conditioner.words, Words):
        for each in dict.fromkeys((*prompts, toward or "")):
            model.conditioner.words.read_whole(each)
    prompts = prompts or [""]
    asked = [each._replace(words=prompts[i % len(prompts)]) for i, each in enumerate(asked)]
    if toward is None:
        return asked
    weight = 0.5 if weight is None else weight
    weights = [float(weight)] if isinstance(weight, int | float) else list(weight)
    if not weights or not all(0 <= each <= 1 for each in weights):
        raise InputError(f"The weight of 'toward' lies between 0 and 1, not at {weight}.")
    _no_more(weights, "weights", count)
    return [
        each._replace(toward=toward, weight=weights[i % len(weights)])
        for i, each in enumerate(asked)
    ]


def _no_more(given: Sequence[object], what: str, count: int) -> None:
    """Refuse more than there are pictures to take them."""
    if len(given) > count:
        raise InputError(
            f"{len(given)} {what} were given for {count} pictures, which take one each; ask for "
            f"{len(given)} pictures or more."
        )


def _labelled(
    model: Model,
    count: int,
    label: int | str | Sequence[int | str] | None,
    sampling: SamplingConfig | None,
) -> list[Ask]:
    labels = labels_of(model, sampling or model.config.sampling)
    find = labels.find
    if label is None:
        return [Ask()] * count
    if label == "each" and labels.classes:
        return [Ask(label=i % len(labels.classes)) for i in range(count)]
    if isinstance(label, (int, str)):
        return [Ask(label=find(str(label)))] * count
    if len(label) != count:
        raise InputError(f"{len(label)} labels were given for {count} pictures; give one each.")
    return [Ask(label=find(str(each))) for each in label]


def in_turn(model: Model, count: int) -> list[Ask]:
    """Every class in turn; nothing in particular for a model without classes."""
    classes = len(model.conditioner.classes)
    return [Ask(label=i % classes if classes else None) for i in range(count)]


def labels_of(model: Model, sampling: SamplingConfig) -> Labels:
    """The classes that can be asked for: the model's own, or those of a classifier."""
    if model.conditioner.classes:
        return model.conditioner
    for each in sampling.guider:
        if GUIDANCE.trait(each.name, "classes"):
            folder = find_model(Path(GUIDANCE.check(each)["run"]))
            return Labels(opened(load_classifier, folder, model.denoiser.runtime).classes)
    return model.conditioner
