"""A transformer whose tokens are positions: for text, and for pictures of few pixels.

Knows nothing of diffusion. Shapes: B batch, C channels, N = H·W tokens, D width.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from couette.contracts import Cond, Sizes
from couette.errors import ConfigError, ShapeError
from couette.networks.common import label, refuse_unknown
from couette.networks.embeddings import FourierFeatures, log_spaced
from couette.networks.layers import drawn
from couette.registry import NETWORKS


@NETWORKS.register("tokens")
class TokenTransformer(nn.Module):
    """Attention among all positions, each a token of its own; text is a row one pixel high.

    The encoder of Vaswani et al. 2017 with the norms first. Time and class come as one more token.
    When to use it: on states: text, and small pictures of few levels.

    Args:
        sizes: channels, height and width of what it takes; classes, 0 for none.
        width: D.
        depth: blocks.
        heads: of attention; they divide the width.
        dropout: share of features dropped inside each block.

    Raises:
        ConfigError: heads that do not divide the width.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        width: Annotated[int, Field(ge=8, le=4096)] = 128,
        depth: Annotated[int, Field(ge=1, le=64)] = 4,
        heads: Annotated[int, Field(ge=1, le=64)] = 4,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(f"{heads} heads do not divide a width of {width}; change one.")
        self.wants = frozenset({"label"} if sizes.classes else ())
        self.grid = sizes.height, sizes.width
        self.time = FourierFeatures(log_spaced(width // 4))
        self.told = nn.Linear(self.time.width, width)
        self.label = nn.Embedding(sizes.classes + 1, width) if sizes.classes else None
        self.enter = nn.Linear(sizes.channels, width)
        self.place = drawn(1 + sizes.height * sizes.width, width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, heads, 4 * width, dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.leave = nn.Linear(width, sizes.outputs)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """(B, C, H, W), (B,) and, where there are classes, {"label": (B,) int64}: (B, C, H, W).

        Raises:
            ConfigError: a key of `cond` that is not in `wants`, or one of `wants` that is missing.
            ShapeError: another height or width than it was built for.
        """
        refuse_unknown(cond, self.wants)
        if x.shape[-2:] != self.grid:
            raise ShapeError(
                f"The network 'tokens' knows {self.grid[0]}×{self.grid[1]} positions and was given "
                f"{x.shape[-2]}×{x.shape[-1]}; build it for that size."
            )
        first = self.told(self.time(told).to(self.told.weight.dtype))
        if self.label is not None:
            first = first + self.label(label(cond))
        tokens = self.enter(x.flatten(2).transpose(1, 2))  # (B, N, D)
        h = torch.cat((first[:, None], tokens), 1) + self.place
        for block in self.blocks:
            h = block(h)
        out: Tensor = self.leave(self.norm(h[:, 1:]))
        return out.transpose(1, 2).reshape(x.shape[0], -1, *self.grid)
