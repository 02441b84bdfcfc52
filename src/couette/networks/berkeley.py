"""Berkeley's U-Net of the CS180 assignment: alone, told the time, or told time and class.

The blocks bear the assignment's names. Shapes: B batch, C channels, D hidden width, H height,
W width, K classes.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from couette.contracts import Cond, Sizes
from couette.networks.common import label, refuse_unknown, require_multiple
from couette.registry import NETWORKS


class _Normed(nn.Sequential):
    """A convolution, BatchNorm and GELU: the assignment's unit."""

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d) -> None:
        super().__init__(convolution, nn.BatchNorm2d(convolution.out_channels), nn.GELU())


class ConvBlock(nn.Sequential):
    """Two 3×3 convolutions: (B, inside, H, W) to (B, outside, H, W)."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(
            _Normed(nn.Conv2d(inside, outside, 3, padding=1)),
            _Normed(nn.Conv2d(outside, outside, 3, padding=1)),
        )


class DownBlock(nn.Sequential):
    """A 3×3 convolution of stride 2 and a ConvBlock: to (B, outside, H/2, W/2)."""

    def __init__(self, inside: int, outside: int) -> None:
        halve = nn.Conv2d(inside, outside, 3, stride=2, padding=1)
        super().__init__(_Normed(halve), ConvBlock(outside, outside))


class UpBlock(nn.Sequential):
    """A 4×4 transposed convolution of stride 2 and a ConvBlock: to (B, outside, 2H, 2W)."""

    def __init__(self, inside: int, outside: int) -> None:
        double = nn.ConvTranspose2d(inside, outside, 4, stride=2, padding=1)
        super().__init__(_Normed(double), ConvBlock(outside, outside))


class Flatten(nn.Sequential):
    """The mean over a whole map, and GELU: (B, C, *side) to (B, C, 1, 1)."""

    def __init__(self, side: tuple[int, int]) -> None:
        super().__init__(nn.AvgPool2d(side), nn.GELU())


class Unflatten(_Normed):
    """A transposed convolution as large as the map: (B, C, 1, 1) to (B, C, *side)."""

    def __init__(self, channels: int, side: tuple[int, int]) -> None:
        super().__init__(nn.ConvTranspose2d(channels, channels, side, stride=side))


class FCBlock(nn.Sequential):
    """Linear, GELU, Linear: (B, inside) to (B, outside, 1, 1), to be spread over a map."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(
            nn.Linear(inside, outside),
            nn.GELU(),
            nn.Linear(outside, outside),
            nn.Unflatten(1, (outside, 1, 1)),
        )


@NETWORKS.register("berkeley")
class BerkeleyUNet(nn.Module):
    """Berkeley's CS180 U-Net, of hidden width D.

    Two halvings, a bottleneck of one pixel, two doublings, skips joined by concatenation. Time is
    added and the class multiplies, c·h + t, after the bottleneck and after the first doubling; a
    class is a one-hot vector and "none" is the zero vector. The assignment pools its 7×7 map (28
    px); here the pool is H/4 × W/4. Source: UC Berkeley CS180, project 5, part B, 1.1–2.4.

    A forward pass of one 28×28 picture costs 2.14 GFLOP at D = 128 and 0.54 at D = 64. When to use
    it: for Berkeley's assignment and small gray pictures.

    Args:
        sizes: the pictures; height and width must be multiples of 4. Classes are used only
            with `time`.
        hidden: D. The assignment takes 128 for the one-step denoiser, 64 with time.
        time: take the time (and the class, where there are classes).

    Raises:
        ShapeError: a side is not a multiple of 4.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        hidden: Annotated[int, Field(ge=1, le=4096)] = 128,
        time: bool = False,
    ) -> None:
        super().__init__()
        require_multiple(sizes, 4, "berkeley")
        side = (sizes.height // 4, sizes.width // 4)
        self.classes = sizes.classes if time else 0
        self.wants = frozenset({"label"}) if self.classes else frozenset[str]()
        self.enter = ConvBlock(sizes.channels, hidden)
        self.down1 = DownBlock(hidden, hidden)
        self.down2 = DownBlock(hidden, 2 * hidden)
        self.flatten = Flatten(side)
        self.unflatten = Unflatten(2 * hidden, side)
        self.up1 = UpBlock(4 * hidden, hidden)
        self.up2 = UpBlock(2 * hidden, hidden)
        self.leave = ConvBlock(2 * hidden, hidden)
        self.out = nn.Conv2d(hidden, sizes.outputs, 3, padding=1)
        self.time1 = FCBlock(1, 2 * hidden) if time else None
        self.time2 = FCBlock(1, hidden) if time else None
        self.class1 = FCBlock(self.classes, 2 * hidden) if self.classes else None
        self.class2 = FCBlock(self.classes, hidden) if self.classes else None

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """(B, C, H, W) to (B, C, H, W).

        Args:
            told: (B,) normalized t in [0, 1]; ignored without `time`.
            cond: "label" (B,) int64 in [0, K], K meaning "none", where the network has classes.

        Raises:
            ConfigError: a key of `cond` that the network can't be told, or no label where it
                needs one.
        """
        refuse_unknown(cond, self.wants)
        one_hot = self._one_hot(cond, x.dtype)
        told = told[:, None].to(x.dtype)
        fine = self.enter(x)  # D at H×W
        middle = self.down1(fine)  # D at H/2×W/2
        coarse = self.down2(middle)  # 2D at H/4×W/4
        h = self.unflatten(self.flatten(coarse))
        h = _told(h, told, one_hot, self.time1, self.class1)
        h = self.up1(_join(h, coarse))
        h = _told(h, told, one_hot, self.time2, self.class2)
        h = self.up2(_join(h, middle))
        predicted: Tensor = self.out(self.leave(_join(h, fine)))
        return predicted

    def _one_hot(self, cond: Cond, dtype: torch.dtype) -> Tensor | None:
        """(B, K), whose row is zero for "none"; None where the network has no classes."""
        if not self.classes:
            return None
        return F.one_hot(label(cond), self.classes + 1)[:, :-1].to(dtype)


def _join(h: Tensor, skip: Tensor) -> Tensor:
    return torch.cat((h, skip), dim=1)


def _told(
    h: Tensor, told: Tensor, one_hot: Tensor | None, time: FCBlock | None, kind: FCBlock | None
) -> Tensor:
    """c·h + t, with whichever of the two the network has."""
    if kind is not None:
        h = kind(one_hot) * h
    if time is not None:
        h = h + time(told)
    return h
