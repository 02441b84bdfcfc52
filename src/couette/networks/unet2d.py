"""Diffusers' UNet2DModel, parameter for parameter and name for name.

Modules bear the names that diffusers gives them, so that a state dict goes both ways unchanged;
`diffusers_config` translates the settings. Shapes: B batch, C channels, H height, W width,
E width of the time embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Annotated, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from couette.contracts import Cond, Sizes
from couette.errors import ConfigError
from couette.networks.common import label, refuse_unknown, require_multiple, unmixed
from couette.networks.embeddings import sinusoidal
from couette.networks.layers import GroupNorm, attend
from couette.registry import NETWORKS
from couette.runtime import Repeated


class _Layers(NamedTuple):
    """What all blocks of one network share."""

    embedding: int
    groups: int
    eps: float
    dropout: float
    head: int | None
    depth: int
    padding: int

    def norm(self, channels: int) -> GroupNorm:
        return GroupNorm(self.groups, channels, eps=self.eps)

    def resnet(self, inside: int, outside: int) -> ResnetBlock:
        return ResnetBlock(inside, outside, self)

    def attention(self, channels: int, wanted: bool) -> nn.Module:
        return Attention(channels, self) if wanted else NoAttention()


class ResnetBlock(Repeated):
    """Two normalized 3×3 convolutions with the time added between them, around a shortcut."""

    def __init__(self, inside: int, outside: int, layers: _Layers) -> None:
        super().__init__()
        self.norm1 = layers.norm(inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.time_emb_proj = nn.Linear(layers.embedding, outside)
        self.norm2 = layers.norm(outside)
        self.dropout = nn.Dropout(layers.dropout)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor, embedded: Tensor) -> Tensor:
        """(B, inside, H, W) and (B, E) to (B, outside, H, W)."""
        h = self.conv1(F.silu(self.norm1(x)))
        h = h + self.time_emb_proj(F.silu(embedded))[:, :, None, None]
        h = self.conv2(self.dropout(F.silu(self.norm2(h))))
        result: Tensor = self.conv_shortcut(x) + h
        return result


class Attention(Repeated):
    """Self-attention among the pixels of a map, with a residual; heads of `layers.head` channels.

    Channels beyond a whole number of heads are left out of the attention, as in diffusers.
    """

    def __init__(self, channels: int, layers: _Layers) -> None:
        super().__init__()
        self.head = layers.head or channels
        inner = channels // self.head * self.head
        self.group_norm = layers.norm(channels)
        self.to_q = nn.Linear(channels, inner)
        self.to_k = nn.Linear(channels, inner)
        self.to_v = nn.Linear(channels, inner)
        self.to_out = nn.Sequential(nn.Linear(inner, channels))

    def forward(self, x: Tensor, perturb: Tensor | None) -> Tensor:
        """(B, C, H, W) to (B, C, H, W); without attention in the rows of `perturb` (B,) bool."""
        pixels = self.group_norm(x).flatten(2).transpose(1, 2)  # (B, HW, C)
        query, key, value = (
            project(pixels).unflatten(2, (-1, self.head)).transpose(1, 2)  # (B, heads, HW, head)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        mixed = unmixed(attend(query, key, value), value, perturb)
        out: Tensor = self.to_out(mixed.transpose(1, 2).flatten(2))  # (B, HW, C)
        return x + out.transpose(1, 2).reshape(x.shape)


class NoAttention(nn.Module):
    """Where a level has none."""

    def forward(self, x: Tensor, perturb: Tensor | None) -> Tensor:
        """x as it is."""
        return x


class Downsample(nn.Module):
    """A 3×3 convolution of stride 2; `padding` 0 pads one pixel at the bottom and right only."""

    def __init__(self, channels: int, padding: int) -> None:
        super().__init__()
        self.padding = padding
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H/2, W/2)."""
        result: Tensor = self.conv(x if self.padding else F.pad(x, (0, 1, 0, 1)))
        return result


class Upsample(nn.Module):
    """Nearest-neighbour doubling and a 3×3 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, 2H, 2W)."""
        result: Tensor = self.conv(F.interpolate(x, scale_factor=2.0))
        return result


class TimeEmbedding(nn.Module):
    """Linear, SiLU, Linear: (B, inside) to (B, E)."""

    def __init__(self, inside: int, embedding: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(inside, embedding)
        self.linear_2 = nn.Linear(embedding, embedding)

    def forward(self, waves: Tensor) -> Tensor:
        result: Tensor = self.linear_2(F.silu(self.linear_1(waves)))
        return result


class DownBlock(nn.Module):
    """One level of the way down: residual blocks, attention after each, then a halving."""

    def __init__(
        self, inside: int, outside: int, layers: _Layers, *, attention: bool, halve: bool
    ) -> None:
        super().__init__()
        widths = [inside] + [outside] * layers.depth
        self.resnets = nn.ModuleList(layers.resnet(*pair) for pair in pairwise(widths))
        self.attentions = nn.ModuleList(layers.attention(outside, attention) for _ in self.resnets)
        halving = [Downsample(outside, layers.padding)] if halve else []
        self.downsamplers = nn.ModuleList(halving)

    def forward(self, x: Tensor, embedded: Tensor, perturb: Tensor | None) -> list[Tensor]:
        """Every map on the way, for the skips; the last is where the next level starts."""
        maps = []
        for resnet, attention in zip(self.resnets, self.attentions, strict=True):
            x = attention(resnet(x, embedded), perturb)
            maps.append(x)
        for downsample in self.downsamplers:
            x = downsample(x)
            maps.append(x)
        return maps


class MidBlock(nn.Module):
    """The coarsest level: a residual block, attention, a residual block."""

    def __init__(self, channels: int, layers: _Layers, *, attention: bool) -> None:
        super().__init__()
        self.attentions = nn.ModuleList([layers.attention(channels, attention)])
        self.resnets = nn.ModuleList(layers.resnet(channels, channels) for _ in range(2))

    def forward(self, x: Tensor, embedded: Tensor, perturb: Tensor | None) -> Tensor:
        x = self.attentions[0](self.resnets[0](x, embedded), perturb)
        result: Tensor = self.resnets[1](x, embedded)
        return result


class UpBlock(nn.Module):
    """One level of the way up: a skip joined before each residual block, then a doubling."""

    def __init__(
        self,
        inside: int,
        outside: int,
        skips: Sequence[int],
        layers: _Layers,
        *,
        attention: bool,
        double: bool,
    ) -> None:
        super().__init__()
        widths = [inside] + [outside] * (len(skips) - 1)
        self.resnets = nn.ModuleList(
            layers.resnet(width + skip, outside) for width, skip in zip(widths, skips, strict=True)
        )
        self.attentions = nn.ModuleList(layers.attention(outside, attention) for _ in skips)
        self.upsamplers = nn.ModuleList([Upsample(outside)] if double else [])

    def forward(
        self, x: Tensor, skips: list[Tensor], embedded: Tensor, perturb: Tensor | None
    ) -> Tensor:
        """Takes its skips from the end of `skips`."""
        for resnet, attention in zip(self.resnets, self.attentions, strict=True):
            x = attention(resnet(torch.cat((x, skips.pop()), dim=1), embedded), perturb)
        for upsample in self.upsamplers:
            x = upsample(x)
        return x


@NETWORKS.register("unet2d")
class UNet2D(nn.Module):
    """Diffusers' UNet2DModel: the one to train for `couette export --format diffusers`.

    Weights go both ways by `load_state_dict`. A DDPM U-Net (Ho et al. 2020, arXiv 2006.11239,
    appendix B). The defaults are the Hugging Face diffusion course's network, 1,707,009 parameters
    for one channel. Where there are classes, diffusers' `num_class_embeds` is their number plus
    one; the last row is "none". A level with as many groups as channels (the finest one of the
    defaults) normalizes away the time that its blocks have just added: that is how the course's
    network is, and its other levels are told. When to use it: to take weights from diffusers, or to
    hand them back.

    Args:
        sizes: the pictures; both sides must be multiples of 2^(levels − 1).
        block_out_channels: channels of each level, finest first.
        attention: whether a level has attention, finest first; the way up mirrors it.
        layers_per_block: residual blocks a level on the way down; one more on the way up.
        norm_num_groups: groups of every GroupNorm; must divide every level's channels.
        attention_head_dim: channels of an attention head; None makes one head of all.
        mid_attention: attention at the coarsest level, between the two ways.
        dropout: share of activations dropped in residual blocks.
        downsample_padding: 1, or 0 to pad at the bottom and right only (DDPM's own networks).
        flip_sin_to_cos: the time's cosines before its sines.
        freq_shift: 1 makes the time's last frequency 1/10,000 exactly, as DDPM's; 0 stops short.
        norm_eps: added to the variance in every GroupNorm.

    Raises:
        ShapeError: a side that can't be halved often enough.
        ConfigError: settings that contradict each other.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        block_out_channels: tuple[int, ...] = (32, 64, 64),
        attention: tuple[bool, ...] = (False, True, True),
        layers_per_block: Annotated[int, Field(ge=1, le=64)] = 2,
        norm_num_groups: int = 32,
        attention_head_dim: int | None = 8,
        mid_attention: bool = True,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
        downsample_padding: Literal[0, 1] = 1,
        flip_sin_to_cos: bool = True,
        freq_shift: Literal[0, 1] = 0,
        norm_eps: Annotated[float, Field(gt=0)] = 1e-5,
    ) -> None:
        super().__init__()
        widths = block_out_channels
        _check(widths, attention, norm_num_groups, attention_head_dim, mid_attention)
        require_multiple(sizes, 2 ** (len(widths) - 1), "unet2d")
        first, last = widths[0], widths[-1]
        wanted = {"label": sizes.classes, "perturb": mid_attention or any(attention)}
        self.wants = frozenset(key for key, there in wanted.items() if there)
        self.waves = partial(
            sinusoidal, width=first, cosine_first=flip_sin_to_cos, shift=freq_shift
        )
        layers = _Layers(
            embedding=4 * first,
            groups=norm_num_groups,
            eps=norm_eps,
            dropout=dropout,
            head=attention_head_dim,
            depth=layers_per_block,
            padding=downsample_padding,
        )
        self.time_embedding = TimeEmbedding(first, layers.embedding)
        self.class_embedding = (
            nn.Embedding(sizes.classes + 1, layers.embedding) if sizes.classes else None
        )
        self.conv_in = nn.Conv2d(sizes.channels, first, 3, padding=1)
        self.down_blocks, skips = _way_down(widths, attention, layers)
        self.mid_block = MidBlock(last, layers, attention=mid_attention)
        self.up_blocks = _way_up(widths, attention, skips, layers)
        self.conv_norm_out = layers.norm(first)
        self.conv_out = nn.Conv2d(first, sizes.outputs, 3, padding=1)

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """(B, C, H, W) to (B, C, H, W).

        Args:
            told: (B,) counting steps, 0 to about 1000.
            cond: "label" (B,) int64 in [0, K], K meaning "none", where there are K classes; where
                the network attends, "perturb" (B,) bool, the rows to do it without.

        Raises:
            ConfigError: a key of `cond` that the network can't be told, or no label where it
                needs one.
        """
        refuse_unknown(cond, self.wants)
        embedded, perturb = self._embed(told, cond, x.dtype), cond.get("perturb")
        x = self.conv_in(x)
        skips = [x]
        for down in self.down_blocks:
            skips += down(skips[-1], embedded, perturb)
        x = self.mid_block(skips[-1], embedded, perturb)
        for up in self.up_blocks:
            x = up(x, skips, embedded, perturb)
        result: Tensor = self.conv_out(F.silu(self.conv_norm_out(x)))
        return result

    def _embed(self, told: Tensor, cond: Cond, dtype: torch.dtype) -> Tensor:
        """Time and class as one vector, (B, E)."""
        embedded: Tensor = self.time_embedding(self.waves(told).to(dtype))
        if self.class_embedding is not None:
            embedded = embedded + self.class_embedding(label(cond))
        return embedded


def _way_down(
    widths: Sequence[int], attention: Sequence[bool], layers: _Layers
) -> tuple[nn.ModuleList, list[int]]:
    """The blocks, finest first, and the channels of every map they leave for the way up."""
    blocks = nn.ModuleList()
    skips = [widths[0]]
    for level, (width, attends) in enumerate(zip(widths, attention, strict=True)):
        halve = level < len(widths) - 1
        blocks.append(DownBlock(skips[-1], width, layers, attention=attends, halve=halve))
        skips += [width] * (layers.depth + halve)
    return blocks, skips


def _way_up(
    widths: Sequence[int], attention: Sequence[bool], skips: Sequence[int], layers: _Layers
) -> nn.ModuleList:
    """The blocks, coarsest first; each takes one map more than its level's residual blocks."""
    blocks = nn.ModuleList()
    left = list(skips)
    inside = widths[-1]
    for level in reversed(range(len(widths))):
        taken = [left.pop() for _ in range(layers.depth + 1)]
        blocks.append(
            UpBlock(
                inside, widths[level], taken, layers, attention=attention[level], double=level > 0
            )
        )
        inside = widths[level]
    return blocks


def _check(
    widths: Sequence[int], attention: Sequence[bool], groups: int, head: int | None, middle: bool
) -> None:
    if not widths or len(widths) != len(attention):
        raise ConfigError(
            f"block_out_channels has {len(widths)} levels and attention has {len(attention)}; "
            "give both one entry per level, at least one."
        )
    if groups < 1 or any(width % groups for width in widths):
        raise ConfigError(
            f"norm_num_groups={groups} does not divide every width of block_out_channels="
            f"{tuple(widths)}; choose a common divisor, such as {math.gcd(*widths)}."
        )
    attending = [w for w, attends in zip(widths, attention, strict=True) if attends]
    narrowest = min(attending + [widths[-1]] * middle, default=None)
    if head is not None and narrowest is not None and not 1 <= head <= narrowest:
        raise ConfigError(
            f"attention_head_dim={head} does not fit a level of {narrowest} channels; "
            f"give 1 to {narrowest}."
        )
