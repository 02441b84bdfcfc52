"""Words as numbers: byte-level pairs, learned from captions or given.

Shapes: B captions, L tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from couette.errors import ConfigError

PAD, START, END = 0, 1, 2
_SPECIAL = 3
"""Numbers that no text can be turned into, whatever it says: they are not in the vocabulary."""

_BYTES = 256
_RARE = 2
"""A pair that is seen less often is not worth a token."""


class Tokens(NamedTuple):
    """Captions as numbers.

    ids: (B, L) int64, each from START to END, then PAD. mask: (B, L) bool, False for padding.
    cut: how many captions were too long, and lost their ends.
    """

    ids: Tensor
    mask: Tensor
    cut: int


class Tokenizer:
    """Byte-level byte-pair encoding (Sennrich et al. 2016; Radford et al. 2019), in lower case.

    Any text can be encoded, emoji and languages that no caption was in included.

    Args:
        text: a tokenizer as the library `tokenizers` writes it, in JSON.

    Raises:
        ConfigError: it is none.
    """

    def __init__(self, text: str) -> None:
        # Here, since it takes a while and few models read words.
        import tokenizers

        try:
            self._pairs = tokenizers.Tokenizer.from_str(text)
            highest = max(self._pairs.get_vocab().values(), default=-1)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # where Rust panics, what is raised is no Exception
            raise ConfigError(
                f"The tokenizer can't be read ({error}); give a tokenizer.json of the library "
                "tokenizers."
            ) from None
        if highest >= self._pairs.get_vocab_size():
            raise ConfigError(
                f"The tokenizer numbers a token {highest}, but has no so many; give another one."
            )
        self._pairs.no_padding()
        self._pairs.no_truncation()
        self.text = text

    @classmethod
    def learned(cls, captions: Iterable[str], vocabulary: int = 1024) -> Tokenizer:
        """A tokenizer whose pairs are those of these captions.

        Args:
            captions: what it is learned from.
            vocabulary: the most tokens it may have, the 256 bytes included.

        Raises:
            ConfigError: a vocabulary without room for all bytes.
        """
        import tokenizers
        from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

        if vocabulary < _BYTES:
            raise ConfigError(f"A vocabulary of {vocabulary} has no room for the {_BYTES} bytes.")
        pairs = tokenizers.Tokenizer(models.BPE())
        pairs.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
        pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        pairs.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=_RARE,
            show_progress=False,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
        pairs.train_from_iterator(captions, trainer)
        return cls(pairs.to_str())

    @property
    def size(self) -> int:
        """How many numbers there are: tokens are below it."""
        return int(self._pairs.get_vocab_size(with_added_tokens=True)) + _SPECIAL

    def __call__(self, captions: Sequence[str], length: int) -> Tokens:
        """Captions as rows of `length` numbers.

        Raises:
            ConfigError: a length below 3, which no word fits into.
        """
        if length < 3:
            raise ConfigError(f"{length} tokens hold no word between start and end; allow 3.")
        rows = [self._ids(caption) for caption in captions]
        ids = torch.full((len(rows), length), PAD, dtype=torch.int64)
        mask = torch.zeros(len(rows), length, dtype=torch.bool)
        for i, row in enumerate(rows):
            kept = [START, *row[: length - 2], END]
            ids[i, : len(kept)] = torch.tensor(kept)
            mask[i, : len(kept)] = True
        return Tokens(ids, mask, sum(len(row) > length - 2 for row in rows))

    def longest(self, captions: Iterable[str]) -> int:
        """The tokens of the longest caption, start and end included, and room for one at least."""
        return max(3, *(len(self._ids(caption)) + 2 for caption in captions))

    def words(self, caption: str) -> list[tuple[str, tuple[int, ...]]]:
        """The words of a caption, each with the places of its tokens in its row of numbers."""
        encoded = self._pairs.encode(caption, add_special_tokens=False)
        numbers = [word or 0 for word in encoded.word_ids]
        return placed(caption, numbers, encoded.offsets, first=1)

    def _ids(self, caption: str) -> list[int]:
        encoded = self._pairs.encode(caption, add_special_tokens=False)
        return [each + _SPECIAL for each in encoded.ids]


def placed(
    caption: str,
    numbers: Sequence[int | None],
    offsets: Sequence[tuple[int, int]],
    first: int = 0,
) -> list[tuple[str, tuple[int, ...]]]:
    """The words of a caption, each with the places of its tokens.

    Args:
        caption: the text.
        numbers: of each token the word it is of; None for one of no word.
        offsets: of each token where it begins and ends in the caption.
        first: the place of the first token.
    """
    places: dict[int, list[int]] = {}
    for place, word in enumerate(numbers):
        if word is not None:
            places.setdefault(word, []).append(place)
    found = []
    for those in places.values():
        spans = [offsets[place] for place in those]
        shown = caption[min(span[0] for span in spans) : max(span[1] for span in spans)].strip()
        if shown:
            found.append((shown, tuple(first + place for place in those)))
    return found


def same(one: Tokenizer, other: Tokenizer) -> bool:
    """Whether two tokenizers are the same, however they are written."""
    return bool(json.loads(one.text) == json.loads(other.text))
