"""From what is asked to what the network is told: labels and words.

Shapes: B asks, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from couette.contracts import Ask, Cond
from couette.data.tokenizer import Tokenizer
from couette.errors import InputError, UnknownName


class Labels:
    """Class labels. The number of classes itself stands for "none".

    Args:
        classes: the names, in the order of the labels; empty for a model without classes.
    """

    def __init__(self, classes: Sequence[str] = ()) -> None:
        self.classes = tuple(classes)

    def __call__(self, asked: Sequence[Ask]) -> dict[str, Tensor]:
        """(B,) int64 under "label"; nothing for a model without classes.

        Raises:
            InputError: a label for a model without classes, or one out of range.
        """
        labels = [ask.label for ask in asked]
        given = [label for label in labels if label is not None]
        if given and not self.classes:
            raise InputError("This model was trained without labels; leave out --label.")
        for label in given:
            if not 0 <= label < len(self.classes):
                raise InputError(
                    f"Label {label} is out of range; this model knows 0 to {len(self.classes) - 1}."
                )
        if not self.classes:
            return {}
        none = len(self.classes)
        rows = [none if label is None else label for label in labels]
        return {"label": torch.tensor(rows, dtype=torch.int64)}

    def find(self, name: str) -> int:
        """The label of a class, by its name or its number.

        Raises:
            InputError: the model has no classes.
            UnknownName: no such class; the nearest is named.
        """
        if not self.classes:
            raise InputError("This model was trained without labels; leave out --label.")
        if name in self.classes:
            return self.classes.index(name)
        if name.isdecimal() and int(name) < len(self.classes):
            return int(name)
        raise UnknownName("label", name, self.classes)


class Words:
    """Captions as tokens; the empty one stands for "none".

    Args:
        tokenizer: of the model.
        length: L, tokens of a caption; longer ones lose their ends.
    """

    def __init__(self, tokenizer: Tokenizer, length: int) -> None:
        self.tokenizer, self.length = tokenizer, length

    def __call__(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """ "text" (B, L) int64 and "text_mask" (B, L) bool."""
        tokens = self.tokenizer(captions, self.length)
        return {"text": tokens.ids, "text_mask": tokens.mask}


class Conditioning(Labels):
    """What a model can be asked for: a class, words, both or neither.

    Args:
        classes: as for `Labels`.
        words: None for a model that reads none.
    """

    def __init__(self, classes: Sequence[str] = (), words: Words | None = None) -> None:
        super().__init__(classes)
        self.words = words

    def __call__(self, asked: Sequence[Ask]) -> dict[str, Tensor]:
        """What `Labels` and `Words` make of it.

        Raises:
            InputError: words for a model without text, or what `Labels` refuses.
        """
        told = super().__call__(asked)
        if self.words is not None:
            return told | self.words([ask.words or "" for ask in asked])
        if any(ask.words for ask in asked):
            raise InputError(
                "This model was trained without captions; leave out --prompt, or train one with "
                "--recipe text-to-image."
            )
        return told


class Captions:
    """The captions of a data set as the network is told them, by the pictures' indices.

    Args:
        words: how they are told.
        texts: one a picture.
    """

    def __init__(self, words: Words, texts: Sequence[str]) -> None:
        kinds = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        self._told = words(tuple(kinds))
        self._which = torch.tensor([kinds[text] for text in texts])

    def __call__(self, index: Tensor) -> Cond:
        """What is told of the pictures at `index` (B,) int64."""
        which = self._which[index]
        return {name: rows[which] for name, rows in self._told.items()}
