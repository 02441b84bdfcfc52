"""A CLIP or T5 of transformers as what tells words to a model that is trained here.

The encoder is frozen, in float32, and no part of the model: it is named, and known again by a
digest. Shapes: B captions, L tokens, D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from couette.config import PretrainedConfig
from couette.data.tokenizer import Tokens, placed
from couette.errors import CheckpointError, ConfigError
from couette.interop.encoders import Encoder, Source
from couette.interop.folders import CONFIG, Folder, checked, guarded
from couette.interop.libraries import WORDS, transformers
from couette.interop.places import is_ours, lasting, located, refuse_pickles
from couette.networks.text import WordEncoder
from couette.runtime import Runtime

_PARTS = ("text_encoder", "tokenizer")
"""What is used of a pipeline."""

_COMPUTED = (
    *("hidden_act", "layer_norm_eps", "num_attention_heads"),
    *("feed_forward_proj", "layer_norm_epsilon", "relative_attention_max_distance"),
)
"""The settings that change what is computed, and no weight's shape."""

_LEAST = 3
"""Tokens with room for a word between start and end."""

_AT_ONCE = 1024
"""Captions that are cut into tokens at once."""

_REMEMBERED, _SMALL = 4, 64
"""Batches of captions whose states are kept, the latest ones, and how many captions they have."""


class Pretrained(NamedTuple):
    """An encoder of words that was opened, and what it is as data.

    longest: tokens that it reads at most.
    """

    tokenizer: Subwords
    encoder: States
    longest: int
    described: PretrainedConfig


class Subwords:
    """Captions as the encoder's own tokenizer cuts them; `conditioners.Tokenizes`."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @property
    def size(self) -> int:
        """How many numbers there are."""
        return len(self._tokenizer)

    def __call__(self, captions: Sequence[str], length: int) -> Tokens:
        """Captions as rows of `length` numbers.

        Raises:
            ConfigError: a length that no word fits into.
        """
        if length < _LEAST:
            raise ConfigError(
                f"{length} tokens hold no word between start and end; allow {_LEAST}."
            )
        told = self._tokenizer(
            list(captions),
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
        cut = sum(count > length for count in self._lengths(captions))
        return Tokens(told.input_ids, told.attention_mask.bool(), cut)

    def longest(self, captions: Iterable[str]) -> int:
        """The tokens of the longest caption, start and end included, and room for one at least."""
        return max(_LEAST, max(self._lengths(list(captions)), default=0))

    def words(self, caption: str) -> list[tuple[str, tuple[int, ...]]]:
        """The words of a caption, each with the places of its tokens in its row of numbers."""
        told = self._tokenizer(caption, return_offsets_mapping=True, verbose=False)
        return placed(caption, told.word_ids(), told["offset_mapping"])

    def _lengths(self, captions: Sequence[str]) -> Iterator[int]:
        for start in range(0, len(captions), _AT_ONCE):
            some = list(captions[start : start + _AT_ONCE])
            yield from map(len, self._tokenizer(some, verbose=False).input_ids)


class States(WordEncoder):
    """The last states of an encoder, zeros where there is padding.

    Captions that are alike are encoded once, and the latest batches are remembered whole: a prompt
    for many pictures is read once, and no row depends on what else was asked before.
    """

    def __init__(self, model: nn.Module, width: int) -> None:
        super().__init__()
        self.model, self.width = model, width
        self._known: dict[tuple[object, ...], Tensor] = {}

    def forward(self, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L) int64 and (B, L) bool to (B, L, D) float32, and the mask."""
        rows = torch.stack((text, mask.to(text.dtype)), dim=1)
        kinds, which = torch.unique(rows, dim=0, return_inverse=True)
        key = (str(text.device), torch.get_num_threads(), kinds.cpu().numpy().tobytes())
        found = self._known.pop(key, None)
        if found is None:
            found = self._states(kinds[:, 0], kinds[:, 1])
        if len(kinds) <= _SMALL:
            self._known[key] = found
        for old in [*self._known][:-_REMEMBERED]:
            del self._known[old]
        return found[which], mask

    def _states(self, text: Tensor, mask: Tensor) -> Tensor:
        with torch.autocast(text.device.type, enabled=False):
            found: Tensor = self.model(text, attention_mask=mask).last_hidden_state
        return found.float() * mask[..., None]


def open_words(given: str | Path) -> Pretrained:
    """A frozen encoder of words with its tokenizer, on the CPU in float32.

    Args:
        given: a folder with a CLIP or a T5 of transformers and its tokenizer, or that of a pipeline
            with a `text_encoder` and a `tokenizer`; or `owner/name` of the hub.

    Raises:
        CheckpointError: it can't be had, is damaged, holds no encoder of words, or its weights are
            pickles.
        ConfigError: a package is missing.
    """
    transformers()
    name = lasting(given)
    path = located(name, _PARTS)
    return guarded(lambda: _opened(path, str(given), name), str(given))


def _opened(path: Path, given: str, name: str) -> Pretrained:
    source = _source(path, given)
    opened = Encoder(source, Runtime(threads=torch.get_num_threads()))
    width = int(opened.model.config.hidden_size)
    digest = _digest(opened.model, opened.tokenizer)
    described = PretrainedConfig(source=name, kind=source.kind, width=width, digest=digest)
    encoder = States(opened.model, width).eval()
    return Pretrained(Subwords(opened.tokenizer), encoder, opened.most, described)


def open_again(described: PretrainedConfig) -> Pretrained:
    """The encoder that a model was trained with.

    Raises:
        CheckpointError: it is not where it was, or it is another one now.
        ConfigError: a package is missing.
    """
    source = described.source
    where = (
        "say where it lies now: with --text.run to train on; to draw, as text.run in the run's "
        "config.yaml, or as pretrained.source in the model.json of a model without a run"
    )
    try:
        found = open_words(source)
    except CheckpointError as error:
        raise CheckpointError(
            f"This model is told its words by another library's encoder, '{source}', which can't "
            f"be opened: {str(error).rstrip('.')}. Put it back, or {where}."
        ) from error
    now, before = found.described.digest, described.digest
    if now != before:
        raise CheckpointError(
            f"'{source}' holds another encoder of words than the {described.kind} that this model "
            f"was trained with (SHA-256 {now[:12]}…, not {before[:12]}…). Put that back, or "
            f"{where}."
        )
    return found


def _source(path: Path, given: str) -> Source:
    """Where the encoder lies in a folder.

    Raises:
        CheckpointError: there is none.
    """
    if path.is_file():
        refuse_pickles(path)
    if is_ours(path):
        raise CheckpointError(
            f"{given} is a run of Couette's; give an encoder of its own with --text.encoder clip."
        )
    if not path.is_dir():
        raise CheckpointError(
            f"There is no folder {given}; give one with a CLIP or a T5 of transformers, or "
            "owner/name of the Hugging Face hub."
        )
    folder = Folder(path, given)
    if not folder.single and not all(map(folder.has, _PARTS)):
        raise CheckpointError(f"{given} is a '{folder.kind}' without an encoder of words.")
    weights, words = (path, path) if folder.single else map(folder.part, _PARTS)
    fields = folder.index if folder.single else folder.config(_PARTS[0])
    kind = _kind(fields, given)
    if isinstance(fields.get("text_config"), dict):
        fields = checked(fields["text_config"], weights / CONFIG)
    return Source(given, "encoder", WORDS[kind], fields, weights, words)


def _kind(fields: dict[str, Any], given: str) -> str:
    """The class of a model with an encoder of words.

    Raises:
        CheckpointError: one that has none, or is not known.
    """
    kinds = fields.get("architectures")
    kind = str(kinds[0]) if isinstance(kinds, list) and kinds else "none"
    if kind in WORDS:
        return kind
    if "Vision" in kind:
        raise CheckpointError(
            f"{given} holds a '{kind}', which sees pictures and reads no words; give the whole "
            "CLIP, or its encoder of words."
        )
    raise CheckpointError(
        f"{given} is a '{kind}', and words are told by none such; those that can tell them are "
        f"{', '.join(WORDS)}."
    )


def _digest(model: Any, tokenizer: Any) -> str:
    """The SHA-256 of an encoder's weights, of what its settings make of them, and of its
    vocabulary, whatever file they lay in."""
    found = hashlib.sha256()
    weights = {name.removeprefix("text_model."): value for name, value in model.named_parameters()}
    for name in sorted(weights):
        value = weights[name].detach().contiguous()
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.numpy().data)
    settings = {name: getattr(model.config, name, None) for name in _COMPUTED}
    found.update(json.dumps([settings, sorted(tokenizer.get_vocab().items())]).encode())
    return found.hexdigest()
