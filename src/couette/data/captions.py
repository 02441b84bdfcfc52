"""Captions for labelled pictures, made of the names of their classes."""

from __future__ import annotations

import re
from dataclasses import replace

from couette.data.dataset import Dataset, Splits
from couette.errors import ConfigError, DataError

NAME, WORD = "{}", "{word}"

_NUMBERS = {
    "0": "zero",
    "1": "one",
    "2": "two",
    "3": "three",
    "4": "four",
    "5": "five",
    "6": "six",
    "7": "seven",
    "8": "eight",
    "9": "nine",
    "10": "ten",
}


def captioned(splits: Splits, templates: tuple[str, ...]) -> Splits:
    """The same pictures with captions: each template in turn, with the picture's class in it.

    Args:
        splits: labelled pictures without captions.
        templates: `{}` stands for the name of the class, `{word}` for it in words where it is a
            number up to ten: "the digit {}" and "a {word}" give "the digit 7" and "a seven".

    Raises:
        ConfigError: a template without a place for the class, or with another one.
        DataError: pictures without labels, or with captions of their own.
    """
    for template in templates:
        places = set(re.findall(r"\{[^{}]*\}", template))
        if not places or not places <= {NAME, WORD}:
            raise ConfigError(
                f"--data.captions '{template}' has no place for the class of a picture; write {{}} "
                "where its name goes, or {word} for a number in words, as in 'a photo of a {}'."
            )
    train, test = splits
    return Splits(_told(train, templates), None if test is None else _told(test, templates))


def _told(data: Dataset, templates: tuple[str, ...]) -> Dataset:
    if data.texts is not None:
        raise DataError(
            f"'{data.name}' has captions of its own; leave out --data.captions, which makes them "
            "of classes."
        )
    if data.labels is None or not data.classes:
        raise DataError(
            f"'{data.name}' has no classes to make captions of; leave out --data.captions, or give "
            "pictures in a folder for each class."
        )
    every = [[_filled(template, name) for name in data.classes] for template in templates]
    texts = tuple(every[i % len(every)][label] for i, label in enumerate(data.labels.tolist()))
    shown = ", ".join(f"'{texts[i]}'" for i in range(min(2, len(texts))))
    notes = (*data.notes, f"captions are made of the classes, as {shown}") if data.notes else ()
    return replace(data, texts=texts, notes=notes, fingerprint="")


def _filled(template: str, name: str) -> str:
    told = {NAME: name, WORD: _NUMBERS.get(name, name)}
    return re.sub(r"\{(word)?\}", lambda place: told[place[0]], template)
