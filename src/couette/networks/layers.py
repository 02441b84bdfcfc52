"""Layers that several networks share, written so that channels_last maps are read in rows.

Shapes: B batch, C channels, H height, W width, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

MANY = 1024
"""Tokens above which attention must not hold a weight for every pair of them."""

AT_ONCE = 2**20
"""Pairs whose weights a processor works out at once, so that they stay in its cache."""


Tap = Callable[[Tensor], Tensor]
"""What attention's weights go through on their way."""


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
    """torch's GroupNorm, (B, C, H, W), for maps in channels_last.

    On cards torch copies such a map to the other layout, which the next convolution undoes; on
    processors it takes several times as long and loses more digits where the mean is large. Here
    the moments of each group, summed in float32, become one scale and one shift a channel, and the
    map keeps its dtype; under autocast torch would widen it. A mean of a thousand deviations costs
    several percent of the deviation.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not x.is_contiguous(memory_format=torch.channels_last):
            return super().forward(x)
        with torch.autocast(x.device.type, enabled=False):
            rows = x.permute(0, 2, 3, 1).flatten(1, 2)
            settings = self.weight, self.bias, self.num_groups, self.eps
            # torch's stubs leave `apply` untyped.
            y: Tensor = _GroupNorm.apply(rows, *settings)  # type: ignore[no-untyped-call]
        batch, _, height, width = x.shape
        return y.reshape(batch, height, width, self.num_channels).permute(0, 3, 1, 2)


class _GroupNorm(torch.autograd.Function):
    """Wu & He 2018, "Group Normalization", eq. 1 and 2, of (B, N, C) rows."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
    ) -> Tensor:
        total, square = _sums(rows)
        count = rows.shape[1] * rows.shape[2] // groups
        mean = _grouped(total, groups) / count
        variance = (_grouped(square, groups) / count - mean.square()).clamp_min(0)
        inverse = (variance + eps).rsqrt()
        scale = weight * inverse
        ctx.save_for_backward(rows, weight, mean, inverse)
        ctx.groups, ctx.count = groups, count
        return _affine(rows, scale, bias - mean * scale)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, mean, inverse = ctx.saved_tensors
        total, product = _sums(dy, rows)
        product = (product - mean * total) * inverse  # of dy and the normed rows
        # What a change of the mean and of the variance gives back, as a shift and a scale of rows.
        along = -inverse * _grouped(weight * product, ctx.groups) * inverse / ctx.count
        shift = -inverse * _grouped(weight * total, ctx.groups) / ctx.count - mean * along
        dx = torch.addcmul(
            _affine(rows, along, shift), dy, (weight * inverse).to(dy.dtype)[:, None]
        )
        return dx, product.sum(0), total.sum(0), None, None


def _sums(one: Tensor, other: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Over N, of `one` and of `one·other`, `one` itself where there is no other: (B, N, C) each, to
    (B, C) of float32 or more."""
    wide = torch.promote_types(one.dtype, torch.float32)
    total = one.sum(1, dtype=wide)
    if other is not None:
        return total, (one * other).sum(1, dtype=wide)
    if one.device.type == "cpu":
        return total, one.to(wide).square().sum(1)
    # Cards widen as they read, so that no wider copy is written.
    return total, torch.linalg.vector_norm(one, dim=1, dtype=wide).square()


def _grouped(sums: Tensor, groups: int) -> Tensor:
    """The sum of each group of (B, C) for every channel in it."""
    batch, channels = sums.shape
    of_groups = sums.reshape(batch, groups, channels // groups).sum(2, keepdim=True)
    return of_groups.expand(-1, -1, channels // groups).reshape(batch, channels)


def _affine(rows: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    scale, shift = scale.to(rows.dtype), shift.to(rows.dtype)
    return torch.addcmul(shift[:, None], rows, scale[:, None])


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
    tap: Tap | None = None,
) -> Tensor:
    """softmax(q·kᵀ/√d)·v, all (B, heads, tokens, d).

    mask: bool, broadcast over (B, heads, tokens of q, tokens of k); False is not attended to.
    tap: what the weights go through on their way, where they are looked at or changed.

    On processors the fused kernel is the faster one in float32. In bfloat16 it takes longer than
    two products, without a mask a few rows at a time so that their weights stay in the cache, and
    its backward pass several times as long; then only the square of `tokens` in memory speaks for
    it.
    """
    products = q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.shape[2] <= MANY
    if tap is not None:
        return _attend(q, k, v, mask, tap)
    if not products:
        return F.scaled_dot_product_attention(q, k, v, mask)
    rows = max(AT_ONCE // max(q.shape[1] * q.shape[2] * k.shape[2], 1), 1)
    # A compiler would write the loop out, part by part.
    if mask is not None or len(q) <= rows or torch.compiler.is_compiling():
        return _attend(q, k, v, mask)
    few = zip(*(torch.split(part, rows) for part in (q, k, v)), strict=True)
    return torch.cat([_attend(*each) for each in few])


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, tap: Tap | None = None
) -> Tensor:
    """All at once, with a weight for every pair in memory."""
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
