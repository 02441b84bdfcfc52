"""What a saved model is, as data."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from couette.config.groups import (
    DiffusionConfig,
    Frozen,
    SamplingConfig,
    TextConfig,
)
from couette.config.specs import Spec, spec

FORMAT = 1
"""The version of what is written to disk; files of a later one are refused."""


class ReaderConfig(Frozen):
    """The encoder of words of a model that has one beside its network: its size, and the SHA-256 of
    its weights."""

    width: Annotated[int, Field(ge=1, le=65536)]
    depth: Annotated[int, Field(ge=0, le=256)]
    digest: str


class PretrainedConfig(Frozen):
    """The encoder of words of another library that a model is told by, and does not hold.

    source: a folder, or hf:owner/name. kind: its class. width: features of a token. digest: the
    SHA-256 of its weights, its settings and its vocabulary, by which it is known again.
    """

    source: str
    kind: str
    width: Annotated[int, Field(ge=1, le=65536)]
    digest: str


class AutoencoderConfig(Frozen):
    """The autoencoder of a model that works on latents: its network, what `mean` and `scale` its
    latents have, by channel, and the SHA-256 of its weights."""

    network: Spec
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    digest: str


class ModelConfig(Frozen):
    """What a saved model is, as data: enough to build it again."""

    @property
    def is_points(self) -> bool:
        """Whether it makes 2-D points, (N, 2, 1, 1), instead of pictures."""
        return (self.channels, self.height, self.width) == (2, 1, 1)

    format: int = FORMAT
    recipe: str
    objective: Spec = spec("diffusion")
    channels: Annotated[int, Field(ge=1, le=4096)]
    height: Annotated[int, Field(ge=1, le=16384)]
    width: Annotated[int, Field(ge=1, le=16384)]
    classes: tuple[str, ...] = ()
    codec: Spec
    autoencoder: AutoencoderConfig | None = None
    diffusion: DiffusionConfig
    text: TextConfig = TextConfig()
    reader: ReaderConfig | None = None
    pretrained: PretrainedConfig | None = None
    network: Spec
    sampling: SamplingConfig
    data: str = ""
    data_fingerprint: str = ""
    step: int = 0
