"""The smallest network that denoises: three convolutions down, three up, told nothing of time.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from couette.contracts import Cond, Sizes
from couette.networks.common import refuse_unknown, require_multiple
from couette.registry import NETWORKS


def _conv(inside: int, outside: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, kernel_size=5, padding=2)


@NETWORKS.register("basic", blind=True)
class BasicUNet(nn.Module):
    """The course's minimal U-Net: 309,057 parameters for one channel.

    5×5 convolutions C → 32 → 64 → 64 and 64 → 64 → 32 → C, each followed by SiLU; max pooling on
    the way down, nearest-neighbour doubling and added skips on the way up. It is not told the time,
    and it ends in SiLU, so its output is never below about −0.28: recipes that use it work on
    pictures in [0, 1] and let it predict the picture itself. Source: the Hugging Face diffusion
    course, unit 1, "Diffusion Models from Scratch". When to use it: for the course's first
    experiments.

    Args:
        sizes: the pictures; height and width must be multiples of 4. Classes are not used.

    Raises:
        ShapeError: a side is not a multiple of 4.
    """

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        require_multiple(sizes, 4, "basic")
        self.wants: frozenset[str] = frozenset()
        self.down = nn.ModuleList([_conv(sizes.channels, 32), _conv(32, 64), _conv(64, 64)])
        self.up = nn.ModuleList([_conv(64, 64), _conv(64, 32), _conv(32, sizes.outputs)])

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """(B, C, H, W) to (B, C, H, W); `told` is ignored. A key in `cond` is a ConfigError."""
        refuse_unknown(cond, self.wants)
        fine = F.silu(self.down[0](x))  # 32 at H×W
        middle = F.silu(self.down[1](F.max_pool2d(fine, 2)))  # 64 at H/2×W/2
        coarse = F.silu(self.down[2](F.max_pool2d(middle, 2)))  # 64 at H/4×W/4
        coarse = F.silu(self.up[0](coarse))
        middle = F.silu(self.up[1](F.interpolate(coarse, scale_factor=2.0) + middle))
        return F.silu(self.up[2](F.interpolate(middle, scale_factor=2.0) + fine))
