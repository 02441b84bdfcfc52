"""Pictures and words in one space: near each other where they belong together.

It knows nothing of diffusion. Shapes: B batch, C channels, H height, W width, L tokens, D width of
the text tower, E embedding.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from couette.contracts import Cond, Sizes
from couette.errors import ConfigError
from couette.networks.common import refuse_unknown
from couette.networks.layers import ChannelNorm
from couette.networks.text import Reader, words_of
from couette.networks.unet import fitting
from couette.networks.vae import Block
from couette.registry import NETWORKS

SHARPEST = 100.0
"""What the scale of similarities is clamped to (Radford et al. 2021, sec. 2.5)."""

_TEMPERATURE = 0.07


@NETWORKS.register("clip", gives="embeddings")
class Clip(nn.Module):
    """For contrastive learning: a tower for words, one for pictures, embeddings of unit length.

    Radford et al. 2021, sec. 2.4, with a convolutional tower for pictures and attention both ways
    among the words. When to use it: with the objective `contrastive`, to search pictures by words,
    and as the encoder of words of a diffusion model.

    Args:
        sizes: channels, height and width of the pictures; what is told of words.
        width: D, of the text tower.
        depth: its blocks.
        eye: channels of the first level of the picture tower.
        patch: side of the square of pixels that becomes one position of it.
        multiples: channels of each level, as multiples of `eye`; each halves the resolution.
        blocks: residual blocks of each level.
        embedding: E.
        dropout: share of features dropped before either embedding.

    Raises:
        ConfigError: data without captions, or no levels.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        width: Annotated[int, Field(ge=8, le=4096)] = 128,
        depth: Annotated[int, Field(ge=0, le=24)] = 3,
        eye: Annotated[int, Field(ge=8, le=4096)] = 64,
        patch: Annotated[int, Field(ge=1, le=16)] = 2,
        multiples: tuple[Annotated[int, Field(ge=1, le=64)], ...] = (1, 2, 4),
        blocks: Annotated[int, Field(ge=1, le=32)] = 1,
        embedding: Annotated[int, Field(ge=8, le=4096)] = 128,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__()
        if sizes.text is None:
            raise ConfigError(
                "The network 'clip' compares pictures with words, and is told none; give data with "
                "captions, and --text.encoder learned."
            )
        side = -(-min(sizes.height, sizes.width) // patch)
        widths = [eye * each for each in fitting(multiples, side)]
        self.wants = frozenset({"text", "text_mask"})
        self.patch, self.multiple = patch, patch << (len(widths) - 1)
        self.reader = Reader(sizes.text, width, depth)
        self.enter = nn.Conv2d(sizes.channels * patch**2, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.Sequential(*(Block(each) for _ in range(blocks))) for each in widths
        )
        self.downs = nn.ModuleList(
            nn.Conv2d(outer, inner, 2, stride=2) for outer, inner in pairwise(widths)
        )
        self.norm = ChannelNorm(widths[-1])
        self.dropout = nn.Dropout(dropout)
        self.of_words = nn.Linear(width, embedding, bias=False)
        self.of_pictures = nn.Linear(widths[-1], embedding, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / _TEMPERATURE)))

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by, 1/temperature: learned."""
        return self.log_scale.exp()

    @torch.no_grad()
    def blunted(self) -> None:
        """Bring a scale above `SHARPEST` down to it: the weight itself, which can then fall."""
        self.log_scale.clamp_(max=math.log(SHARPEST))

    def read(self, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, L) and their mask to a vector a token, (B, L, D), and the caption's embedding,
        (B, E) of unit length.

        Raises:
            ShapeError: more tokens than it was built for.
        """
        states, _, gist = self.reader(text, mask)
        return states, F.normalize(self.of_words(self.dropout(gist)).float(), dim=1)

    def look(self, x: Tensor) -> Tensor:
        """Pictures in [-1, 1], (B, C, H, W), to embeddings (B, E) of unit length."""
        gist = F.silu(self.norm(self.maps(x)[-1])).mean((2, 3))
        return F.normalize(self.of_pictures(self.dropout(gist)).float(), dim=1)

    def maps(self, x: Tensor) -> list[Tensor]:
        """What each level of the picture tower sees of pictures in [-1, 1], outermost first, each
        (B, C', h, w)."""
        height, width = x.shape[-2:]
        h = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))
        h = self.enter(F.pixel_unshuffle(h, self.patch))
        seen = []
        for i, level in enumerate(self.levels):
            h = level(self.downs[i - 1](h) if i else h)
            seen.append(h)
        return seen

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """How alike each picture (B, C, H, W) and each caption are, scaled cosines (B, B). `told`
        is not looked at.

        Raises:
            ConfigError: a key in `cond` beside "text" and "text_mask", or one of them missing.
        """
        refuse_unknown(cond, self.wants)
        _, words = self.read(*words_of(cond))
        return self.scale * self.look(x) @ words.mT
