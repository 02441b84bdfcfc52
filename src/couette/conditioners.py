"""From what is asked to what the network is told: labels, words and pictures.

Shapes: B asks, L tokens, D features.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from couette.contracts import Ask, Cond
from couette.data.store import (
    as_tensor,
    created,
    mapped,
    new_store,
    read_record,
    stored,
    write_record,
)
from couette.data.tokenizer import Tokens
from couette.errors import InputError, StorageError, UnknownName, WordsCut
from couette.networks.text import WordEncoder
from couette.tensors import sent

NO_WORDS = (
    "This model was trained without captions, so it can't be told words; leave out --prompt and "
    "--negative, or train one with --recipe text-to-image."
)
NO_LABELS = "This model was trained without labels; leave out --label."
WORDS_INSTEAD = (
    "This model reads words and knows no labels; leave out --label, and say what to draw as its "
    'captions do: for --label 3, say, --prompt "a three".'
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

    lacking = NO_LABELS
    """What to say where a label is asked for and there are no classes."""

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
            raise InputError(self.lacking)
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
            raise InputError(self.lacking)
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

    def read_whole(self, text: str) -> None:
        """Say what is read of words that are too long.

        Warns:
            WordsCut: they lose their end.
        """
        if self.tokenizer((text,), self.length).cut:
            last = self.length - 1
            kept = [w for w, places in self.tokenizer.words(text) if max(places) < last]
            warnings.warn(
                f"Of '{text}' only '{' '.join(kept)}' is read: this model reads {self.length} "
                "tokens, the marks of beginning and end among them (--text.length, in training).",
                WordsCut,
                stacklevel=2,
            )

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
        if words is not None:
            self.lacking = WORDS_INSTEAD

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
_FILE, _TEXT, _WHAT = "features", "text", "features of captions"


class Captions:
    """The captions of a data set as the network is told them, by the pictures' indices.

    What is told of each caption is worked out once, and an encoder's features kept in float16:
    where `ROOM` allows in memory, else in a file that every run on the same captions uses, which
    can be deleted at any time. Where the disk has no room either, they are worked out for every
    batch.

    Args:
        words: how they are told.
        texts: one a picture.
        keep: whether to work them all out; not for a batch or two.
        digest: of the encoder's weights; without one no file is kept.
        tell: called before what may take long.
    """

    def __init__(
        self,
        words: Words,
        texts: Sequence[str],
        *,
        keep: bool = True,
        digest: str | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> None:
        kinds = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        self._words, self._kinds, self._tell = words, tuple(kinds), tell
        self._which = torch.tensor([kinds[text] for text in texts])
        fits = 2 * len(kinds) * words.length * max(words.features, 1) <= ROOM
        self._told: dict[str, Tensor] | None = None
        if keep and fits:
            self._told = self._all()
        elif keep and words.features and digest is not None:
            self._told = self._on_disk(digest)

    def __call__(self, index: Tensor) -> Cond:
        """What is told of the pictures at `index` (B,) int64."""
        which = self._which[index]
        if self._told is None:
            return self._words([self._kinds[i] for i in which.tolist()])
        rows = {name: rows[sent(which, rows.device)] for name, rows in self._told.items()}
        return {name: r.float() if r.is_floating_point() else r for name, r in rows.items()}

    def _parts(self) -> Iterator[dict[str, Tensor]]:
        if self._words.features and len(self._kinds) > _AT_ONCE:
            self._tell(f"encoding {len(self._kinds):,} captions, once")
        for start in range(0, len(self._kinds), _AT_ONCE):
            told = self._words(self._kinds[start : start + _AT_ONCE])
            yield {k: v.half() if v.is_floating_point() else v for k, v in told.items()}

    def _all(self) -> dict[str, Tensor]:
        parts = list(self._parts())
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def _on_disk(self, digest: str) -> dict[str, Tensor] | None:
        """All that is told, the features mapped from a file; None where the disk refuses one."""
        words = self._words
        shape = (len(self._kinds), words.length, words.features)
        about = json.dumps([digest, shape, self._kinds])
        key = f"words-{hashlib.sha256(about.encode()).hexdigest()[:40]}"
        if read_record(stored(key)) is None:
            try:
                self._write(key, shape)
            except StorageError as error:
                self._tell(f"{error} Captions are encoded anew for every batch.")
                return None
        held = as_tensor(mapped(stored(key) / _FILE, (*shape[:2], 2 * shape[2])))
        masks = [
            words.tokenizer(self._kinds[start : start + _AT_ONCE], words.length).mask
            for start in range(0, len(self._kinds), _AT_ONCE)
        ]
        return {_TEXT: held.view(torch.float16), "text_mask": torch.cat(masks)}

    def _write(self, key: str, shape: tuple[int, int, int]) -> None:
        with new_store(key, 2 * math.prod(shape), _WHAT) as folder:
            rows = created(folder / _FILE, (*shape[:2], 2 * shape[2]))
            out, start = torch.from_numpy(rows).view(torch.float16), 0
            for part in self._parts():
                out[start : start + len(part[_TEXT])] = part[_TEXT].cpu()
                start += len(part[_TEXT])
            rows.flush()
            write_record(folder, {"shape": list(shape)})
