"""Layers that several networks share, written so that channels_last maps are read in rows.

Shapes: B batch, C channels, H height, W width, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MANY = 1024
"""Tokens above which attention must not hold a weight for every pair of them."""


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each position, (B, C, H, W): one fused, contiguous pass.

    It sums in float32 and gives what it is given. Autocast would have cards widen all it reads and
    writes, for the next layer to narrow it again.
    """

    def forward(self, h: Tensor) -> Tensor:
        weight, bias = (None if p is None else p.to(h.dtype) for p in (self.weight, self.bias))
        with torch.autocast(h.device.type, enabled=False):
            h = F.layer_norm(h.permute(0, 2, 3, 1), self.normalized_shape, weight, bias, self.eps)
        return h.permute(0, 3, 1, 2)


class GroupNorm(nn.GroupNorm):
    """torch's GroupNorm, (B, C, H, W), without its fall in speed on processors.

    There the kernel for channels_last takes several times as long and loses more digits where the
    mean is large. Here the moments of each group become one scale and one shift a channel.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        batch, channels, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        scale, shift = self._affine(rows)
        y = torch.addcmul(shift.to(x.dtype), rows, scale.to(x.dtype))
        return y.reshape(batch, height, width, channels).permute(0, 3, 1, 2)

    def _affine(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What normalizes (B, HW, C) rows, as a scale and a shift of each channel, (B, 1, C)."""
        groups = (self.num_groups, self.num_channels // self.num_groups)
        rows = rows.float()
        mean = rows.mean(1).reshape(-1, *groups).mean(2, keepdim=True)  # (B, G, 1)
        square = rows.square().mean(1).reshape(-1, *groups).mean(2, keepdim=True)
        deviation = ((square - mean.square()).clamp_min(0) + self.eps).sqrt()
        scale = self.weight.reshape(groups) / deviation
        shift = self.bias.reshape(groups) - mean * scale
        return scale.flatten(1)[:, None], shift.flatten(1)[:, None]


def drawn(*shape: int, std: float = 0.02) -> nn.Parameter:
    """A parameter that begins with normal values."""
    return nn.Parameter(nn.init.normal_(torch.empty(shape), std=std))


def head_norm(width: int, heads: int, wanted: bool) -> nn.Module:
    """What queries or keys (B, heads, N, width/heads) go through before they meet.

    Normed, they can't grow with the weights, so that attention stays soft in long runs of large
    steps (Dehghani et al. 2023, "ViT-22B", sec. 2). Where that is not wanted, nothing is done.
    """
    return nn.LayerNorm(width // heads, bias=False) if wanted else nn.Identity()


def turned(x: Tensor, longest: float = 100.0) -> Tensor:
    """Queries or keys (B, heads, L, d), turned by their position in the row.

    Pairs of channels turn by position·longest^(-i/count), so that products of turned queries and
    keys see how far apart two words are (Su et al. 2021, "RoFormer", eq. 34). A word must find its
    neighbour: whose colour is red?

    Args:
        longest: about how many positions the slowest pair takes to turn by one.
    """
    length, count = x.shape[-2], x.shape[-1] // 2
    speeds = longest ** (-torch.arange(count, device=x.device) / count)
    angle = torch.arange(length, device=x.device)[:, None] * speeds
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b, rest = x[..., :count], x[..., count : 2 * count], x[..., 2 * count :]
    return torch.cat((a * cos - b * sin, a * sin + b * cos, rest), -1)


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    tap: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """softmax(q·kᵀ/√d)·v, all (B, heads, tokens, d).

    mask: bool, broadcast over (B, heads, tokens of q, tokens of k); False is not attended to.
    tap: what the weights go through on their way, where they are looked at or changed.

    On processors the fused kernel is the faster one in float32, but its backward pass in bfloat16
    takes several times as long as these two products; then only the square of `tokens` in memory
    speaks for it.
    """
    products = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] <= MANY
    if tap is None and not products:
        return F.scaled_dot_product_attention(q, k, v, mask)
    scores = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    weights = torch.softmax(scores, dim=-1)
    return (weights if tap is None else tap(weights)) @ v


def places(rows: int, columns: int, like: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Sines and cosines of each position's row and column, (rows·columns, width).

    Args:
        rows, columns: of the positions.
        like: has the dtype and the device that are wanted.
        width: a multiple of 4.
        longest: the last and longest wave is less than 2π times this many positions long (Vaswani
            et al. 2017, sec. 3.5).
    """
    count = width // 4
    waves = torch.exp(torch.arange(count, device=like.device) * (-math.log(longest) / count))
    y, x = (torch.arange(n, device=like.device)[:, None] * waves for n in (rows, columns))
    down = torch.cat((y.sin(), y.cos()), 1)[:, None].expand(rows, columns, -1)
    along = torch.cat((x.sin(), x.cos()), 1)[None].expand(rows, columns, -1)
    return torch.cat((down, along), 2).flatten(0, 1).to(like.dtype)


class Place(nn.Module):
    """h (B, C, H, W), told where each position is: attention sees no order by itself.

    Added after the norm, to what asks and is asked, so that no noise in h drowns it (Carion et al.
    2020, "DETR", app. A.4).

    Args:
        waves: features of a place, as `places` gives them.
        channels: C.
    """

    def __init__(self, waves: int, channels: int) -> None:
        super().__init__()
        self.learned = nn.Linear(waves, channels, bias=False)
        # The mean square of a wave is a half, so that places begin as large as normed features.
        nn.init.normal_(self.learned.weight, std=(waves / 2) ** -0.5)

    def forward(self, h: Tensor, where: Tensor | None) -> Tensor:
        """h again where `where` (H·W, waves) is None."""
        if where is None:
            return h
        told: Tensor = self.learned(where)
        return h + told.T.reshape(1, -1, *h.shape[2:])
