"""From what is asked to what the network is told."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from couette.contracts import Ask
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
