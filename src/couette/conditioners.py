"""From what is asked to what the network is told: labels, words and pictures.

Shapes: B asks, L tokens, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from couette.contracts import Ask, Cond
from couette.data.tokenizer import Tokens
from couette.errors import InputError, UnknownName
from couette.networks.text import WordEncoder
from couette.tensors import sent

NO_WORDS = (
    "This model was trained without captions, so it can't be told words; leave out --prompt and "
    "--negative, or train one with --recipe text-to-image."
)
NO_PICTURES = (
    "This model works from no other picture; leave it out, or use one that fills in or enlarges "
    "pictures."
)


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


class Reads(Protocol):
    """What turns captions into what a network is told of them."""

    @property
    def features(self) -> int:
        """D, or 0 where tokens are told as they are."""
        ...

    def __call__(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """One row per caption, "text" (B, L) or (B, L, D) among them; the empty one is "none"."""
        ...


class Tokenizes(Protocol):
    """What turns captions into tokens: `data.tokenizer.Tokenizer`, or another library's."""

    @property
    def size(self) -> int:
        """How many numbers there are."""
        ...

    def __call__(self, captions: Sequence[str], length: int) -> Tokens:
        """Captions as rows of `length` numbers."""
        ...

    def longest(self, captions: Iterable[str]) -> int:
        """The tokens of the longest caption."""
        ...

    def words(self, caption: str) -> list[tuple[str, tuple[int, ...]]]:
        """The words of a caption, each with the places of its tokens in its row of numbers."""
        ...


class Words:
    """Captions as tokens, or as what an encoder makes of them; the empty one stands for "none".

    Args:
        tokenizer: of the model.
        length: L, tokens of a caption; longer ones lose their ends.
        reader: the encoder, frozen, with D features a token; None where the network reads tokens.
    """

    def __init__(
        self, tokenizer: Tokenizes, length: int, reader: WordEncoder | None = None
    ) -> None:
        self.tokenizer, self.length = tokenizer, length
        self.reader = None if reader is None else reader.requires_grad_(False).eval()

    @property
    def features(self) -> int:
        """D, or 0 where tokens are told as they are."""
        return 0 if self.reader is None else self.reader.width

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """ "text" (B, L) int64, or (B, L, D) float32 on the reader's device, and "text_mask" (B, L)
        bool."""
        tokens = self.tokenizer(captions, self.length)
        if self.reader is None:
            return {"text": tokens.ids, "text_mask": tokens.mask}
        device = next(self.reader.parameters()).device
        ids, mask = sent(tokens.ids, device), sent(tokens.mask, device)
        return {"text": self.reader(ids, mask)[0].float(), "text_mask": mask}


Pictures = Callable[[Sequence[Ask]], dict[str, Tensor]]
"""What a network is told of the pictures it works from; nothing where none is asked for."""


class Conditioning(Labels):
    """What a model can be asked for: a class, words, both or neither; and pictures to work from.

    Args:
        classes: as for `Labels`.
        words: None for a model that reads none.
        pictures: None for a model that works from none.
    """

    def __init__(
        self,
        classes: Sequence[str] = (),
        words: Reads | None = None,
        pictures: Pictures | None = None,
    ) -> None:
        super().__init__(classes)
        self.words, self.pictures = words, pictures

    def __call__(self, asked: Sequence[Ask]) -> dict[str, Tensor]:
        """What `Labels`, `words` and `pictures` make of it.

        Raises:
            InputError: words or pictures for a model that takes none, or what `Labels` refuses.
        """
        told = super().__call__(asked)
        if self.pictures is not None:
            told |= self.pictures(asked)
        elif any(ask.image is not None or ask.mask is not None for ask in asked):
            raise InputError(NO_PICTURES)
        if self.words is not None:
            own = self.words([ask.words or "" for ask in asked])
            return told | (self._between(asked, own) if any(a.toward for a in asked) else own)
        if any(ask.words for ask in asked):
            raise InputError(NO_WORDS)
        return told

    def _between(self, asked: Sequence[Ask], own: dict[str, Tensor]) -> dict[str, Tensor]:
        """Features between those of an ask's words and those of the words it goes toward.

        Raises:
            InputError: a network that reads tokens, of which there are none in between.
        """
        assert self.words is not None
        if not self.words.features:
            raise InputError(
                "This model reads tokens, and there is nothing between two of them; going from one "
                "prompt toward another needs a model that was told an encoder's features (--recipe "
                "text-to-image)."
            )
        other = self.words([a.toward or a.words or "" for a in asked])
        weight = torch.tensor([a.weight if a.toward else 0.0 for a in asked])
        return {key: _part_way(rows, other[key], weight) for key, rows in own.items()}


def _part_way(own: Tensor, other: Tensor, weight: Tensor) -> Tensor:
    """Features `weight` (B,) of the way from the one to the other; of masks what either shows."""
    weight = weight.to(own.device).reshape(-1, *[1] * (own.ndim - 1))
    if own.is_floating_point():
        return torch.lerp(own, other, weight.to(own))
    return own | (other & (weight > 0))


ROOM = 1_000_000_000
"""Bytes that the features of all captions may take in memory."""

_AT_ONCE = 256


class Captions:
    """The captions of a data set as the network is told them, by the pictures' indices.

    What is told of each caption is worked out once, and an encoder's features kept in float16,
    where `ROOM` allows; else for every batch.

    Args:
        words: how they are told.
        texts: one a picture.
        keep: whether to work them all out; not for a batch or two.
    """

    def __init__(self, words: Words, texts: Sequence[str], *, keep: bool = True) -> None:
        kinds = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        self._words, self._kinds = words, tuple(kinds)
        self._which = torch.tensor([kinds[text] for text in texts])
        fits = 2 * len(kinds) * words.length * max(words.features, 1) <= ROOM
        self._told = self._all() if keep and fits else None

    def __call__(self, index: Tensor) -> Cond:
        """What is told of the pictures at `index` (B,) int64."""
        which = self._which[index]
        if self._told is None:
            return self._words([self._kinds[i] for i in which.tolist()])
        rows = {name: rows[sent(which, rows.device)] for name, rows in self._told.items()}
        return {name: r.float() if r.is_floating_point() else r for name, r in rows.items()}

    def _all(self) -> dict[str, Tensor]:
        parts = []
        for start in range(0, len(self._kinds), _AT_ONCE):
            told = self._words(self._kinds[start : start + _AT_ONCE])
            parts.append({k: v.half() if v.is_floating_point() else v for k, v in told.items()})
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
