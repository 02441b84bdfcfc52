"""A network for points in the plane: what moons, swiss rolls and grids of Gaussians need.

Shapes: B batch, C coordinates (2 in the plane), D hidden width.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from couette.contracts import Cond, Sizes
from couette.errors import ShapeError
from couette.networks.common import label, refuse_unknown
from couette.networks.embeddings import FourierFeatures, log_spaced
from couette.registry import NETWORKS


class Residual(nn.Module):
    """h + a two-layer perceptron of h, scaled and shifted by the embedding in between."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.told = nn.Linear(hidden, 2 * hidden)
        self.enter = nn.Linear(hidden, hidden)
        self.leave = nn.Linear(hidden, hidden)

    def forward(self, h: Tensor, embedded: Tensor) -> Tensor:
        """(B, D) and (B, D) to (B, D)."""
        scale, shift = self.told(embedded).chunk(2, dim=1)
        inner = self.enter(self.norm(h)) * (1 + scale) + shift
        result: Tensor = h + self.leave(F.silu(inner))
        return result


@NETWORKS.register("points", points=True)
class PointMLP(nn.Module):
    """Residual perceptron for points, told the time and, where there are classes, the class.

    The time enters as log-spaced Fourier features, so that a `told` of order 1 (ln(sigma)/4,
    normalized t) and one of order 1000 (a table's index) are both resolved. When to use it: on
    points in the plane.

    Args:
        sizes: height and width must be 1; the channels are the coordinates.
        hidden: D.
        depth: residual layers.

    Raises:
        ShapeError: pictures larger than one pixel.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        hidden: Annotated[int, Field(ge=4, le=8192)] = 128,
        depth: Annotated[int, Field(ge=1, le=64)] = 4,
    ) -> None:
        super().__init__()
        if (sizes.height, sizes.width) != (1, 1):
            raise ShapeError(
                f"The network 'points' takes points, height 1 and width 1, not pictures of "
                f"{sizes.height}×{sizes.width}; choose another network, such as 'unet'."
            )
        self.wants = frozenset({"label"}) if sizes.classes else frozenset[str]()
        self.waves = FourierFeatures(log_spaced(32))
        self.time = nn.Sequential(nn.Linear(self.waves.width, hidden), nn.SiLU())
        self.label = nn.Embedding(sizes.classes + 1, hidden) if sizes.classes else None
        self.mix = nn.Sequential(nn.Linear(hidden, hidden), nn.SiLU())
        self.enter = nn.Linear(sizes.channels, hidden)
        self.layers = nn.ModuleList(Residual(hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(hidden)
        self.leave = nn.Linear(hidden, sizes.outputs)

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """(B, C, 1, 1) to (B, C, 1, 1).

        Args:
            told: (B,) of any range up to about 1000.
            cond: "label" (B,) int64 in [0, K], K meaning "none", where there are K classes.

        Raises:
            ConfigError: a key of `cond` that the network can't be told, or no label where it
                needs one.
        """
        refuse_unknown(cond, self.wants)
        embedded = self.time(self.waves(told).to(x.dtype))
        if self.label is not None:
            embedded = embedded + self.label(label(cond))
        embedded = self.mix(embedded)
        h = self.enter(x.flatten(1))
        for layer in self.layers:
            h = layer(h, embedded)
        result: Tensor = self.leave(F.silu(self.norm(h)))[..., None, None]
        return result
