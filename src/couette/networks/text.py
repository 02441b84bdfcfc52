"""Reading words: from tokens, or from another encoder's features, to what pictures attend to.

It knows nothing of diffusion. Shapes: B batch, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from couette.contracts import Cond, TextSizes
from couette.errors import ConfigError, ShapeError
from couette.networks.layers import ChannelNorm, Place, attend, drawn, head_norm, turned
from couette.runtime import Repeated

WAVES = 32
"""Features of a position's place, see `layers.places`."""

HEAD = 64
"""Channels of an attention head, at most."""

Positions = Literal["rotary", "learned"]

Tap = Callable[[str, Tensor], Tensor]
"""(where, weights (B, heads, positions, L)) -> the weights to go on with."""


def heads_of(width: int) -> int:
    """The fewest heads of at most `HEAD` channels that divide a width."""
    return next(n for n in range(-(-width // HEAD), width + 1) if width % n == 0)


def words_of(cond: Cond) -> tuple[Tensor, Tensor]:
    """What is told of words: tokens (B, L) or features (B, L, D), and which of them count, (B, L).

    Raises:
        ConfigError: they are missing.
    """
    if "text" not in cond or "text_mask" not in cond:
        raise ConfigError(
            "This network reads words and was told no 'text' and 'text_mask'; give the caption of "
            'each picture, an empty one for "none".'
        )
    return cond["text"], cond["text_mask"]


READ = frozenset({"read", "gist"})
"""What a network may be told of words that it has read before, see `read_words`."""


class TextBlock(Repeated):
    """Attention among the tokens, then a perceptron on each; both residual, with the norms first
    (Vaswani et al. 2017; Xiong et al. 2020).

    Args:
        width: D.
        dropout: share of features dropped in either branch.
        rotary: whether attention is told how far apart tokens are, see `layers.turned`.
        qk_norm: whether queries and keys are normed before they meet, see `layers.head_norm`.
    """

    matrices = ("qkv", "leave", "widen", "narrow")

    def __init__(
        self, width: int, dropout: float = 0.0, rotary: bool = True, qk_norm: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.rotary = heads_of(width), rotary
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = head_norm(width, self.heads, qk_norm)
        self.k_norm = head_norm(width, self.heads, qk_norm)
        self.leave = nn.Linear(width, width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, h: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D) and (B, 1, 1, L) bool, which tokens are attended to: (B, L, D)."""
        batch, length, width = h.shape
        parts = self.qkv(self.norm1(h)).reshape(batch, length, 3, self.heads, -1)
        q, k, v = parts.permute(2, 0, 3, 1, 4)
        q, k = self.q_norm(q), self.k_norm(k)
        if self.rotary:
            q, k = turned(q), turned(k)
        mixed = attend(q, k, v, mask)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        h = h + self.dropout(self.leave(mixed))
        out: Tensor = h + self.dropout(self.narrow(F.gelu(self.widen(self.norm2(h)))))
        return out


class WordEncoder(nn.Module):
    """What makes of tokens (B, L) int64 and their mask (B, L) bool a vector each, (B, L, D), and
    more, in a tuple.

    width: D.
    """

    width: int


class Reader(WordEncoder):
    """A small transformer over the words, trained with the network that it is part of.

    Args:
        sizes: of the words: token numbers to be embedded, or features of another encoder.
        width: D, of what it gives.
        depth: blocks.
        positions: how it knows their order: "rotary", by how far apart they are in each attention,
            or "learned", by a vector of each position's added at the beginning.
        qk_norm: whether queries and keys are normed before they meet, see `layers.head_norm`.
    """

    def __init__(
        self,
        sizes: TextSizes,
        width: int,
        depth: int,
        positions: Positions = "rotary",
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.sizes, self.width, self.depth = sizes, width, depth
        self.enter: nn.Module = (
            nn.Embedding(sizes.vocabulary, width)
            if sizes.vocabulary
            else nn.Sequential(nn.LayerNorm(sizes.width), nn.Linear(sizes.width, width))
        )
        rotary = positions == "rotary"
        self.place = None if rotary else drawn(sizes.length, width)
        self.blocks = nn.ModuleList(
            TextBlock(width, rotary=rotary, qk_norm=qk_norm) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, text: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Read words.

        Args:
            text: (B, L) int64 tokens, or (B, L, W) features; L may be less than was planned for.
            mask: (B, L) bool, False for padding.

        Returns:
            (B, L, D) a vector a token; (B, 1, 1, L) the mask as attention takes it; (B, D) the mean
            over the tokens that count.

        Raises:
            ShapeError: more tokens than it was built for, or another number of features.
        """
        if text.shape[1] > self.sizes.length or text.shape[2:] != self._features:
            raise ShapeError(
                f"The words come as {tuple(text.shape[1:])}; this network reads up to "
                f"{self.sizes.length} tokens{self._expected}."
            )
        h = self.enter(text)
        if self.place is not None:
            h = h + self.place[: text.shape[1]]
        attended = mask[:, None, None]
        for block in self.blocks:
            h = block(h, attended)
        h = self.norm(h)
        weight = mask.to(h.dtype)[..., None]
        return h, attended, (h * weight).sum(1) / weight.sum(1).clamp_min(1)

    @property
    def _features(self) -> tuple[int, ...]:
        return () if self.sizes.vocabulary else (self.sizes.width,)

    @property
    def _expected(self) -> str:
        return "" if self.sizes.vocabulary else f" of {self.sizes.width} features"


def read_words(reader: Reader | None, cond: Cond) -> dict[str, Tensor]:
    """What `words_read` need not ask the reader again; nothing where there is none."""
    if reader is None:
        return {}
    read, _, gist = reader(*words_of(cond))
    return {"read": read, "gist": gist}


def words_read(reader: Reader, cond: Cond) -> tuple[Tensor, Tensor, Tensor]:
    """What the reader makes of the words, as it gives it, or what it made of them before."""
    text, mask = words_of(cond)
    if "read" in cond:
        return cond["read"], mask[:, None, None], cond["gist"]
    found: tuple[Tensor, Tensor, Tensor] = reader(text, mask)
    return found


class CrossAttention(nn.Module):
    """h + attention of all positions of h to the words (Rombach et al. 2022, sec. 3.3), each
    position told where it is: words ask for left and right, above and below.

    Args:
        channels: of h.
        text: D, of the words.
        qk_norm: whether queries and keys are normed before they meet, see `layers.head_norm`.
    """

    def __init__(self, channels: int, text: int, qk_norm: bool = False) -> None:
        super().__init__()
        self.heads = heads_of(channels)
        self.q_norm = head_norm(channels, self.heads, qk_norm)
        self.k_norm = head_norm(channels, self.heads, qk_norm)
        self.norm = ChannelNorm(channels, elementwise_affine=False)
        self.place = Place(WAVES, channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.kv = nn.Linear(text, 2 * channels)
        self.leave = nn.Conv2d(channels, channels, 1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)
        self.tap: Callable[[Tensor], Tensor] | None = None

    def forward(self, h: Tensor, text: Tensor, mask: Tensor, where: Tensor | None = None) -> Tensor:
        """(B, C, H, W), (B, L, D), (B, 1, 1, L), (H·W, WAVES): (B, C, H, W)."""
        batch, channels, height, width = h.shape
        q = self.q(self.place(self.norm(h), where)).permute(0, 2, 3, 1)
        q = q.reshape(batch, height * width, self.heads, -1).transpose(1, 2)
        k, v = self.kv(text).reshape(batch, text.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = attend(self.q_norm(q), self.k_norm(k), v, mask, self.tap)
        y = y.transpose(1, 2).reshape(batch, height, width, channels).permute(0, 3, 1, 2)
        out: Tensor = h + self.leave(y)
        return out


@contextmanager
def tapped(network: nn.Module, tap: Tap) -> Iterator[None]:
    """While it stands, each map of attention from positions to words goes through `tap`, which may
    look at it or change it. Maps are named after their module."""
    found = {name: m for name, m in network.named_modules() if isinstance(m, CrossAttention)}
    for name, module in found.items():
        module.tap = lambda weights, name=name: tap(name, weights)
    try:
        yield
    finally:
        for module in found.values():
            module.tap = None
