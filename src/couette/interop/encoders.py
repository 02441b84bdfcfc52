"""Their encoders of words: what networks are told of a prompt.

Shapes: B captions, L tokens, D features. Padding is told like any token, as these networks were
trained; there is no mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from couette.errors import CheckpointError
from couette.interop.folders import Folder
from couette.interop.libraries import ENCODERS, dtype_of, encoder, tokenizer
from couette.runtime import Runtime

Told = dict[str, Tensor]
Encode = Callable[[Sequence[str]], Told]

KEPT = 64
"""Prompts whose features are kept, the latest ones."""

_AT_ONCE = 16


class Encoded:
    """Prompts as features, worked out once each; `conditioners.Reads`.

    Args:
        encode: captions to rows by name, "text" (B, L, D) among them.
        features: D.
    """

    def __init__(self, encode: Encode, features: int) -> None:
        self.features = features
        self._encode = encode
        self._known: dict[str, Told] = {}

    @torch.no_grad()
    def __call__(self, captions: Sequence[str]) -> Told:
        """ "text" (B, L, D) float32, and what else the network is told, on the encoder's device."""
        new = [each for each in dict.fromkeys(captions) if each not in self._known]
        for start in range(0, len(new), _AT_ONCE):
            part = new[start : start + _AT_ONCE]
            found = self._encode(part)
            for row, caption in enumerate(part):
                self._known[caption] = {key: rows[row].float() for key, rows in found.items()}
        rows = [self._known[each] for each in captions]
        told = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
        for caption in [*self._known][:-KEPT]:
            del self._known[caption]
        return told


class Source(NamedTuple):
    """Where an encoder is opened from.

    given: what the user called the whole. name: of the encoder in it, for messages. kind: its
    class, one of `ENCODERS`. fields: its config. weights, words: the folders of the encoder and of
    its tokenizer.
    """

    given: str
    name: str
    kind: str
    fields: dict[str, Any]
    weights: Path
    words: Path


def in_pipeline(folder: Folder, number: str) -> Source:
    """The encoder of a pipeline; `number` is "" for the first, "_2" for the second, …

    Raises:
        CheckpointError: one of a class that is not known, or with a missing or damaged config.
    """
    name, fields = f"text_encoder{number}", described(folder, number)
    kind = kind_of(fields, folder, name)
    parts = folder.part(name), folder.part(f"tokenizer{number}")
    return Source(folder.given, name, kind, fields, *parts)


class Encoder:
    """One encoder with its tokenizer.

    Args:
        source: where it lies.
        runtime: where it runs.

    Raises:
        CheckpointError: a missing or damaged file.
        ConfigError: transformers is not installed.
    """

    def __init__(self, source: Source, runtime: Runtime) -> None:
        fields = source.fields
        self.device = runtime.device
        self.tokenizer = tokenizer(source.kind, source.words)
        if len(self.tokenizer) > int(fields.get("vocab_size") or 0):
            raise CheckpointError(
                f"The tokenizer of {source.given} has {len(self.tokenizer)} tokens, and its "
                f"{source.name} knows {fields.get('vocab_size')}; these parts do not belong "
                "together."
            )
        self.model = encoder(source.kind, source.weights, fields, dtype_of(runtime))
        self.model.to(runtime.device)
        self.most = min(
            int(self.tokenizer.model_max_length),
            int(fields.get("max_position_embeddings") or fields.get("n_positions") or 512),
        )

    def tokens(self, captions: Sequence[str], length: int | None = None) -> Any:
        """Ids and mask, (B, L) each; longer captions lose their ends."""
        return self.tokenizer(
            list(captions),
            padding="max_length",
            max_length=length or self.most,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)

    def states(self, captions: Sequence[str], length: int | None = None, mask: bool = False) -> Any:
        """What the model makes of them, with all its states."""
        tokens = self.tokens(captions, length)
        seen = tokens.attention_mask if mask else None
        with torch.autocast(torch.device(self.device).type, enabled=False):
            return self.model(tokens.input_ids, attention_mask=seen, output_hidden_states=True)


def described(folder: Folder, number: str = "") -> dict[str, Any]:
    """The config of an encoder."""
    return folder.config(f"text_encoder{number}")


def width_of(fields: dict[str, Any]) -> int:
    """D of an encoder, by its config."""
    return int(fields.get("hidden_size") or fields.get("d_model") or 512)


def kind_of(fields: dict[str, Any], folder: Folder, name: str) -> str:
    """The class of an encoder.

    Raises:
        CheckpointError: one that is not known.
    """
    kinds = fields.get("architectures")
    kind = str(kinds[0]) if isinstance(kinds, list) and kinds else "none"
    if kind not in ENCODERS:
        raise CheckpointError(
            f"The {name} of {folder.given} is a '{kind}', which can't be loaded; those that can "
            f"are {', '.join(ENCODERS)}."
        )
    return kind


def clip(folder: Folder, runtime: Runtime) -> Encode:
    """Stable Diffusion 1 and 2: the last states of CLIP (Rombach et al. 2022)."""
    one = Encoder(in_pipeline(folder, ""), runtime)
    masked = bool(described(folder).get("use_attention_mask"))
    return lambda captions: {"text": one.states(captions, mask=masked).last_hidden_state}


T5_LENGTH = 77
"""Tokens that DeepFloyd IF reads."""


def t5(folder: Folder, runtime: Runtime) -> Encode:
    """DeepFloyd IF: the states of T5 for small letters (Saharia et al. 2022, sec. 2.1)."""
    one = Encoder(in_pipeline(folder, ""), runtime)

    def encode(captions: Sequence[str]) -> Told:
        plain = [each.lower().strip() for each in captions]
        return {"text": one.states(plain, T5_LENGTH, mask=True).last_hidden_state}

    return encode


def clips_and_t5(folder: Folder, runtime: Runtime, width: int, length: int = 256) -> Encode:
    """Stable Diffusion 3: two CLIPs side by side, their last states but one, then T5's, where that
    is there (Esser et al. 2024, app. B.2).

    Args:
        folder: the pipeline's.
        runtime: where they run.
        width: D.
        length: tokens that T5 reads; without it as many of zeros are told.
    """
    clips = [Encoder(in_pipeline(folder, number), runtime) for number in ("", "_2")]
    third = folder.has("text_encoder_3")
    last = Encoder(in_pipeline(folder, "_3"), runtime) if third else None

    def encode(captions: Sequence[str]) -> Told:
        found = [each.states(captions, clips[0].most) for each in clips]
        near = torch.cat([each.hidden_states[-2] for each in found], dim=2)
        near = F.pad(near, (0, width - near.shape[2]))
        if last is None:
            far = near.new_zeros(len(captions), length, width)
        else:
            far = last.states(captions, length).last_hidden_state
        pooled = torch.cat([each.text_embeds for each in found], dim=1)
        return {"text": torch.cat((near, far), dim=1), "pooled": pooled}

    return encode


def clip_and_t5(folder: Folder, runtime: Runtime, length: int) -> Encode:
    """Flux: the states of T5, and what CLIP makes of the whole."""
    one, other = (Encoder(in_pipeline(folder, number), runtime) for number in ("", "_2"))
    return lambda captions: {
        "text": other.states(captions, length).last_hidden_state,
        "pooled": one.states(captions).pooler_output,
    }
