"""The default network: a UNet of residual blocks, made to be fast on processors and on GPUs.

It knows nothing of diffusion: it maps (x, told, cond) to a tensor of x's shape.

Shapes: B batch, C channels of a level, H height, W width, E width of the embedding. Feature maps
are channels_last in memory, so the norm over C, the convolutions and attention's tokens (B, H·W, C)
all read contiguous rows and nothing is ever transposed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from couette.contracts import Cond, Sizes
from couette.errors import ConfigError
from couette.networks.common import label, refuse_unknown, unmixed
from couette.networks.embeddings import FourierFeatures, log_spaced
from couette.networks.layers import ChannelNorm, Place, attend, head_norm, places
from couette.networks.text import (
    READ,
    WAVES,
    CrossAttention,
    Positions,
    Reader,
    heads_of,
    read_words,
    words_read,
)
from couette.registry import NETWORKS
from couette.runtime import Repeated

Words = tuple[Tensor, Tensor]
"""What blocks attend to: (B, L, D) words and (B, 1, 1, L) which of them count."""

LONGEST = 64.0
"""Longest wave of the places, as in `places`: some times as long as a level that attends."""

SMALLEST = 4
"""A level whose short side would be shorter than this, in positions, is left out."""


@dataclass(frozen=True)
class Preset:
    """The sizes that a UNet is built from.

    patch: side of the square of pixels that becomes one position of the first level.
    width: channels of the first level.
    multiples: channels of each level, outermost first, as multiples of the width.
    blocks: residual blocks of each level on the way down, and as many on the way up.
    attention: levels of at most this many positions on the short side attend.
    words: levels of at most this many attend to the words, where there are any.
    qk_norm: whether attention's queries and keys are normed before they meet.
    """

    patch: int
    width: int
    multiples: tuple[int, ...]
    blocks: int
    attention: int
    words: int = 16
    qk_norm: bool = False


PRESETS = {
    "tiny": Preset(patch=2, width=64, multiples=(1, 2), blocks=1, attention=8),
    "small": Preset(patch=2, width=64, multiples=(1, 2), blocks=2, attention=8),
    "base": Preset(patch=2, width=96, multiples=(1, 2, 4), blocks=2, attention=8),
    "large": Preset(patch=2, width=192, multiples=(1, 2, 3, 4), blocks=3, attention=16),
}


@NETWORKS.register("unet")
class UNet(nn.Module):
    """The default: residual blocks, attention at low resolution, told the time, a class, words.

    After Ho et al. 2020, app. B, on patches of pixels; words as in Rombach et al. 2022. When to use
    it: first, on pictures of any size.

    Args:
        sizes: channels, height and width of the pictures; classes, 0 for none. The levels are
            planned for this height and width; pictures of any other size work too.
        size: the preset, of which each setting below that is given replaces one.
        patch: side of the square of pixels that becomes one position of the first level.
        width: channels of the first level.
        multiples: channels of each level, outermost first, as multiples of the width.
        blocks: residual blocks of each level on the way down, and as many on the way up.
        attention: levels of at most this many positions on the short side attend.
        words: levels of at most this many attend to the words, where there are any.
        reading: blocks that read the words, before pictures attend to them.
        positions: how the words' order is known: "rotary", by how far apart they are, or "learned",
            by a vector of each position, which is slow to learn what belongs to what.
        qk_norm: attention's queries and keys are normed before they meet, for long runs.
        dropout: share of features dropped inside each residual block.

    Raises:
        ConfigError: no levels.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        size: Literal["tiny", "small", "base", "large"] = "small",
        patch: Annotated[int, Field(ge=1, le=16)] | None = None,
        width: Annotated[int, Field(ge=8, le=4096)] | None = None,
        multiples: tuple[Annotated[int, Field(ge=1, le=64)], ...] | None = None,
        blocks: Annotated[int, Field(ge=1, le=32)] | None = None,
        attention: Annotated[int, Field(ge=0, le=256)] | None = None,
        words: Annotated[int, Field(ge=0, le=256)] | None = None,
        reading: Annotated[int, Field(ge=0, le=24)] = 2,
        positions: Positions = "rotary",
        qk_norm: bool = False,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        preset = PRESETS[size]
        plan = Preset(
            patch=patch or preset.patch,
            width=width or preset.width,
            multiples=preset.multiples if multiples is None else multiples,
            blocks=blocks or preset.blocks,
            attention=preset.attention if attention is None else attention,
            words=preset.words if words is None else words,
            qk_norm=qk_norm,
        )
        side = -(-min(sizes.height, sizes.width) // plan.patch)
        multiples = fitting(plan.multiples, side)

        self.patch = plan.patch
        self.multiple = plan.patch << (len(multiples) - 1)
        text = 0 if sizes.text is None else 2 * plan.width
        self.reader = None
        if sizes.text is not None:
            self.reader = Reader(sizes.text, text, reading, positions, qk_norm)
        self.embedding = Embedding(4 * plan.width, sizes.classes, text)
        self.enter = nn.Conv2d(sizes.channels * plan.patch**2, plan.width, 3, padding=1)
        self.level = build_level(plan, multiples, side, dropout, text)
        self.norm = ChannelNorm(plan.width)
        self.leave = zeroed(nn.Conv2d(plan.width, sizes.outputs * plan.patch**2, 3, padding=1))
        attends = any(isinstance(part, Attention) for part in self.modules())
        told = sizes.text is not None
        wanted = {"label": sizes.classes, "perturb": attends, "text": told, "text_mask": told}
        wanted |= dict.fromkeys(READ, told)
        self.wants = frozenset(key for key, there in wanted.items() if there)

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """(B, C, H, W), (B,) and, where there are classes, {"label": (B,) int64}: (B, C, H, W).

        Where the network attends, "perturb" (B,) bool names the rows to do it without. Where it
        reads words, "text" and "text_mask" are as in `Cond`.

        Raises:
            ConfigError: a key of `cond` that is not in `wants`, or no label or words where it needs
                them.
        """
        refuse_unknown(cond, self.wants)
        height, width = x.shape[-2:]
        words, gist = None, None
        if self.reader is not None:
            text, mask, gist = words_read(self.reader, cond)
            words = text, mask
        emb = self.embedding(told, label(cond) if "label" in self.wants else None, gist)
        h = F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple))
        h = self.enter(F.pixel_unshuffle(h, self.patch))
        h = self.level(h, emb, cond.get("perturb"), words)
        h = self.leave(F.silu(self.norm(h)))
        return F.pixel_shuffle(h, self.patch)[..., :height, :width]

    def read_once(self, cond: Cond) -> Cond:
        """What of `cond` need not be worked out again while it stays the same: the words, read."""
        return read_words(self.reader, cond)

    def reusing(self, every: int) -> Reuse | None:
        """A memory of the lower levels for one run; None where there is but one level."""
        lower = [part for part in self.level.parts if isinstance(part, Lower)]
        return Reuse(lower[0], every) if lower else None


class Embedding(nn.Module):
    """The time, the class and the gist of the words as one vector, (B, E).

    The class number `classes` means none. text: features of the gist, 0 where there is none.
    """

    def __init__(self, width: int, classes: int, text: int = 0) -> None:
        super().__init__()
        self.time = FourierFeatures(log_spaced(width // 4))
        self.label = nn.Embedding(classes + 1, width) if classes else None
        self.gist = nn.Linear(text, width) if text else None
        self.enter = nn.Linear(self.time.width, width)
        self.leave = nn.Linear(width, width)

    def forward(self, told: Tensor, label: Tensor | None, gist: Tensor | None = None) -> Tensor:
        emb = self.enter(self.time(told).to(self.enter.weight.dtype))
        if self.label is not None:
            emb = emb + self.label(label)
        if self.gist is not None:
            emb = emb + self.gist(gist)
        # Every block starts with this SiLU, so it is done once here.
        return F.silu(self.leave(F.silu(emb)))


class Level(nn.Module):
    """Blocks at one resolution, with everything at the lower ones in their middle.

    attends: whether its blocks attend to anything, and so must know where things are.
    """

    nested = True
    """A plan of the network looks inside."""

    def __init__(self, parts: Iterable[nn.Module], attends: bool) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        self.attends = attends

    def forward(
        self, h: Tensor, emb: Tensor, perturb: Tensor | None, words: Words | None
    ) -> Tensor:
        where = places(h.shape[2], h.shape[3], h, WAVES, LONGEST) if self.attends else None
        for part in self.parts:
            h = part(h, emb, where, perturb, words)
        return h


class Reuse:
    """What a network's lower levels gave, kept for the evaluations after it.

    Within `with reuse:` the `Lower` it is of computes its branch in every `every`-th evaluation
    and adds what it has kept in those between. Evaluations of other numbers of pictures are kept
    apart.
    """

    def __init__(self, lower: Lower, every: int) -> None:
        self._lower, self._every = lower, every
        self._kept: dict[int, tuple[Tensor, int]] = {}

    def __enter__(self) -> None:
        self._lower.reuse = self

    def __exit__(self, *fault: object) -> None:
        self._lower.reuse = None

    def __call__(self, rows: int, compute: Callable[[], Tensor]) -> Tensor:
        branch, used = self._kept.get(rows, (None, 0))
        if branch is None or used == self._every:
            branch, used = compute(), 0
        self._kept[rows] = branch, used + 1
        return branch


class Lower(nn.Module):
    """h + up(level(down(h))): a level at half the resolution, seen from the one above.

    The skip connection is an addition: no copy, and no wider convolutions after it. Resampling is
    learned both ways: 2×2 positions become one of `inner` channels, and one becomes 2×2.
    """

    nested = True

    def __init__(self, outer: int, inner: int, level: nn.Module) -> None:
        super().__init__()
        self.down = nn.Conv2d(outer, inner, 2, stride=2)
        self.level = level
        self.up = nn.Conv2d(inner, 4 * outer, 1)
        self.reuse: Reuse | None = None

    @property
    def meddled(self) -> bool:
        """Whether its branch may come from an earlier call."""
        return self.reuse is not None

    def forward(
        self,
        h: Tensor,
        emb: Tensor,
        where: Tensor | None,
        perturb: Tensor | None,
        words: Words | None,
    ) -> Tensor:
        def branch() -> Tensor:
            return unfold(self.up(self.level(self.down(h), emb, perturb, words)))

        return h + (branch() if self.reuse is None else self.reuse(len(h), branch))


class Block(Repeated):
    """A residual block told of `emb`, then attention, to itself and to the words, where the level
    has it.

    h + conv(silu(scale·norm(conv(silu(norm(h)))) + shift)), scale and shift linear in `emb`
    (Dhariwal & Nichol 2021, "adaptive group normalization", with a norm over channels alone).
    """

    def __init__(
        self,
        channels: int,
        emb: int,
        attends: bool,
        dropout: float,
        text: int = 0,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(channels, elementwise_affine=False)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulation = nn.Linear(emb, 2 * channels)
        self.norm2 = ChannelNorm(channels, elementwise_affine=False)
        self.conv2 = zeroed(nn.Conv2d(channels, channels, 3, padding=1))
        self.dropout = nn.Dropout(dropout)
        self.attention = Attention(channels, qk_norm) if attends else None
        self.words = CrossAttention(channels, text, qk_norm) if text else None

    def forward(
        self,
        h: Tensor,
        emb: Tensor,
        where: Tensor | None = None,
        perturb: Tensor | None = None,
        words: Words | None = None,
    ) -> Tensor:
        scale, shift = self.modulation(emb)[..., None, None].chunk(2, dim=1)
        y = self.norm2(self.conv1(F.silu(self.norm1(h))))
        y = F.silu(torch.addcmul(shift, y, scale + 1))
        h = h + self.conv2(self.dropout(y))
        if self.attention is not None:
            h = self.attention(h, perturb, where)
        return h if self.words is None or words is None else self.words(h, *words, where)


class Attention(nn.Module):
    """h + attention among all positions of h, each of which is told where it is."""

    def __init__(self, channels: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads_of(channels)
        self.q_norm = head_norm(channels, self.heads, qk_norm)
        self.k_norm = head_norm(channels, self.heads, qk_norm)
        self.norm = ChannelNorm(channels, elementwise_affine=False)
        self.place = Place(WAVES, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.leave = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(
        self, h: Tensor, perturb: Tensor | None = None, where: Tensor | None = None
    ) -> Tensor:
        batch, channels, height, width = h.shape
        tokens = self.qkv(self.place(self.norm(h), where)).permute(0, 2, 3, 1)  # (B, H, W, 3C)
        tokens = tokens.reshape(batch, height * width, 3, self.heads, -1)
        q, k, v = tokens.permute(2, 0, 3, 1, 4)  # each (B, heads, H·W, C/heads)
        y = unmixed(attend(self.q_norm(q), self.k_norm(k), v), v, perturb)
        y = y.transpose(1, 2).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        out: Tensor = h + self.leave(y)
        return out


def fitting(multiples: tuple[int, ...], side: int) -> tuple[int, ...]:
    """The levels that pictures of `side` positions have room for: the first one always.

    Raises:
        ConfigError: no levels at all.
    """
    if not multiples:
        raise ConfigError("multiples = () asks for a network without levels; give at least one.")
    room = sum(side >> level >= SMALLEST for level in range(len(multiples)))
    return multiples[: max(room, 1)]


def build_level(
    plan: Preset, multiples: tuple[int, ...], side: int, dropout: float, text: int
) -> Level:
    """The level of multiples[0], `side` positions on its short side, with all lower ones in it;
    `text` features a word, 0 for none."""
    channels = plan.width * multiples[0]
    attends, reads = side <= plan.attention, text if side <= plan.words else 0
    blocks = [
        Block(channels, 4 * plan.width, attends, dropout, reads, plan.qk_norm)
        for _ in range(2 * plan.blocks)
    ]
    if len(multiples) == 1:
        return Level(blocks, bool(attends or reads))
    inner = build_level(plan, multiples[1:], -(-side // 2), dropout, text)
    lower = Lower(channels, plan.width * multiples[1], inner)
    parts = [*blocks[: plan.blocks], lower, *blocks[plan.blocks :]]
    return Level(parts, bool(attends or reads))


def unfold(h: Tensor) -> Tensor:
    """(B, 4C, H, W) to (B, C, 2H, 2W): pixel shuffle with the channels innermost in memory."""
    batch, _, height, width = h.shape
    h = h.permute(0, 2, 3, 1).reshape(batch, height, width, 2, 2, -1).transpose(2, 3)
    return h.reshape(batch, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with all its parameters 0: a residual branch that starts as nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
