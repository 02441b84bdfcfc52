"""The network of a classifier: the default network's way down, and a decision.

It knows nothing of diffusion: it maps (x, told) to logits. Shapes: B batch, C channels, H height,
W width, K classes.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from couette.contracts import Cond, Sizes
from couette.errors import ConfigError
from couette.networks.common import refuse_unknown
from couette.networks.layers import ChannelNorm
from couette.networks.unet import Block, Embedding, fitting
from couette.registry import NETWORKS


@NETWORKS.register("encoder", gives="logits")
class Encoder(nn.Module):
    """For classifiers: residual blocks down to a few positions, their mean, a linear decision.

    The way down is `unet`'s (ADM's classifier, Dhariwal & Nichol 2021, sec. 4, is likewise half a
    U-Net). When to use it: with the objective `classifier`.

    Args:
        sizes: channels, height and width of the pictures; the classes to tell apart.
        patch: side of the square of pixels that becomes one position.
        width: channels of the first level.
        multiples: channels of each level, as multiples of the width; each halves the resolution.
        blocks: residual blocks of each level.
        dropout: share of features dropped inside each residual block.

    Raises:
        ConfigError: no classes, or no levels.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        patch: Annotated[int, Field(ge=1, le=16)] = 2,
        width: Annotated[int, Field(ge=8, le=4096)] = 64,
        multiples: tuple[Annotated[int, Field(ge=1, le=64)], ...] = (1, 2, 2),
        blocks: Annotated[int, Field(ge=1, le=32)] = 1,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1,
    ) -> None:
        super().__init__()
        if not sizes.classes:
            raise ConfigError(
                "The network 'encoder' tells classes apart, and these pictures have none; give "
                "data with labels."
            )
        side = -(-min(sizes.height, sizes.width) // patch)
        widths = [width * each for each in fitting(multiples, side)]
        self.wants: frozenset[str] = frozenset()
        self.patch = patch
        self.multiple = patch << (len(widths) - 1)
        self.embedding = Embedding(4 * width, 0)
        self.enter = nn.Conv2d(sizes.channels * patch**2, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.ModuleList(Block(each, 4 * width, False, dropout) for _ in range(blocks))
            for each in widths
        )
        self.downs = nn.ModuleList(
            nn.Conv2d(outer, inner, 2, stride=2) for outer, inner in pairwise(widths)
        )
        self.norm = ChannelNorm(widths[-1])
        self.decide = nn.Linear(widths[-1], sizes.classes)

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """(B, C, H, W) and (B,) to logits, (B, K). A key in `cond` is a ConfigError."""
        refuse_unknown(cond, self.wants)
        height, width = x.shape[-2:]
        emb = self.embedding(told, None)
        h = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))
        h = self.enter(F.pixel_unshuffle(h, self.patch))
        for i, level in enumerate(self.levels):
            h = self.downs[i - 1](h) if i else h
            for block in level:  # type: ignore[attr-defined]
                h = block(h, emb)
        logits: Tensor = self.decide(F.silu(self.norm(h)).mean((2, 3)))
        return logits
