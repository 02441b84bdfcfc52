"""A transformer over patches of a picture: the DiT, told time, class and words.

It knows nothing of diffusion. Shapes: B batch, C channels, H height, W width, p patch, N = H·W/p²
patches, L tokens of words, D width, E = D the embedding.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from couette.contracts import Cond, Sizes
from couette.networks.common import label, refuse_unknown, unmixed
from couette.networks.layers import attend, places
from couette.networks.text import READ, Reader, heads_of, read_words, words_read
from couette.networks.unet import Embedding
from couette.registry import NETWORKS
from couette.runtime import Repeated


@NETWORKS.register("dit")
class DiT(nn.Module):
    """A transformer over patches, told the time, a class and words.

    Peebles & Xie 2023, sec. 3.2, "adaLN-Zero"; words by cross-attention (Chen et al. 2024,
    PixArt-α, fig. 4), or as tokens beside the patches with weights of their own (Esser et al. 2024,
    fig. 2). When to use it: on latents, and where a GPU makes attention cheap.

    Args:
        sizes: channels, height and width of the pictures; classes, 0 for none; what is told of
            words. Pictures of any other size work, too.
        patch: p; what does not fill a patch is padded.
        width: D.
        depth: blocks.
        words: how they are attended to: from the patches, or with them.
        reading: blocks that read the words first.
        dropout: share of features dropped inside each block.
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        patch: Annotated[int, Field(ge=1, le=16)] = 2,
        width: Annotated[int, Field(ge=16, le=8192, multiple_of=4)] = 192,
        depth: Annotated[int, Field(ge=1, le=96)] = 6,
        words: Literal["cross", "joint"] = "cross",
        reading: Annotated[int, Field(ge=0, le=24)] = 2,
        dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0,
    ) -> None:
        super().__init__()
        self.patch, self.width, self.joint = patch, width, words == "joint"
        told = sizes.text is not None
        self.reader = None if sizes.text is None else Reader(sizes.text, width, reading)
        self.embedding = Embedding(width, sizes.classes, width if told else 0)
        self.enter = nn.Linear(sizes.channels * patch**2, width)
        kind = "none" if not told else words
        self.blocks = nn.ModuleList(
            JointBlock(width, dropout, last=i == depth - 1)
            if kind == "joint"
            else Block(width, dropout, words=told)
            for i in range(depth)
        )
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = zeroed(nn.Linear(width, 2 * width))
        self.leave = zeroed(nn.Linear(width, sizes.outputs * patch**2))
        wanted = {"label": sizes.classes, "perturb": True, "text": told, "text_mask": told}
        wanted |= dict.fromkeys(READ, told)
        self.wants = frozenset(key for key, there in wanted.items() if there)

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """(B, C, H, W), (B,) and what it `wants`, as in `Cond`: (B, C, H, W).

        Raises:
            ConfigError: a key of `cond` that is not in `wants`, or one that it needs is missing.
        """
        refuse_unknown(cond, self.wants)
        height, width = x.shape[-2:]
        text = mask = gist = None
        if self.reader is not None:
            text, mask, gist = words_read(self.reader, cond)
        emb = self.embedding(told, label(cond) if "label" in self.wants else None, gist)
        x = F.pad(x, (0, -width % self.patch, 0, -height % self.patch))
        h = F.pixel_unshuffle(x, self.patch).permute(0, 2, 3, 1)  # (B, H/p, W/p, p²·C)
        rows, columns = h.shape[1:3]
        h = self.enter(h.flatten(1, 2)) + places(rows, columns, h, self.width)
        for block in self.blocks:
            if isinstance(block, JointBlock):
                h, text = block(h, emb, text, mask, cond.get("perturb"))
            else:
                h = block(h, emb, text, mask, cond.get("perturb"))
        shift, scale = self.modulation(emb)[:, None].chunk(2, dim=2)
        h = self.leave(torch.addcmul(shift, self.norm(h), scale + 1))
        h = h.reshape(h.shape[0], rows, columns, -1).permute(0, 3, 1, 2)
        return F.pixel_shuffle(h, self.patch)[..., :height, :width]

    def read_once(self, cond: Cond) -> Cond:
        """What of `cond` need not be worked out again while it stays the same: the words, read."""
        return read_words(self.reader, cond)


class Half(nn.Module):
    """What is done to one stream of tokens in a block, around its attention.

    The norms are modulated, and both branches gated, by `emb`; the gates begin at 0, so that the
    block begins as nothing (Peebles & Xie 2023, "adaLN-Zero").
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads_of(width)
        self.norm1 = nn.LayerNorm(width, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, elementwise_affine=False)
        self.modulation = zeroed(nn.Linear(width, 6 * width))
        self.qkv = nn.Linear(width, 3 * width)
        self.leave = nn.Linear(width, width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.dropout = nn.Dropout(dropout)

    def modulations(self, emb: Tensor) -> tuple[Tensor, ...]:
        """Shift, scale and gate of either branch, (B, 1, D) each."""
        parts: tuple[Tensor, ...] = self.modulation(emb)[:, None].chunk(6, dim=2)
        return parts

    def asked(self, h: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Queries, keys and values, (3, B, heads, N, D/heads)."""
        parts = self.qkv(torch.addcmul(shift, self.norm1(h), scale + 1))
        parts = parts.reshape(*h.shape[:2], 3, self.heads, -1)
        asked: Tensor = parts.permute(2, 0, 3, 1, 4)
        return asked

    def mixed(self, h: Tensor, y: Tensor, gate: Tensor) -> Tensor:
        """h + gate·leave(y), y (B, heads, N, D/heads) from attention."""
        out: Tensor = h + gate * self.dropout(self.leave(y.transpose(1, 2).flatten(2)))
        return out

    def thought(self, h: Tensor, shift: Tensor, scale: Tensor, gate: Tensor) -> Tensor:
        """h + gate·mlp(norm(h))."""
        y = self.widen(torch.addcmul(shift, self.norm2(h), scale + 1))
        out: Tensor = h + gate * self.dropout(self.narrow(F.gelu(y, approximate="tanh")))
        return out


class Block(Repeated):
    """Attention among the patches, then to the words where there are any, then a perceptron."""

    matrices = ("qkv", "leave", "widen", "narrow", "q", "kv")

    def __init__(self, width: int, dropout: float, words: bool) -> None:
        super().__init__()
        self.patches = Half(width, dropout)
        self.words = Cross(width) if words else None

    def forward(
        self,
        h: Tensor,
        emb: Tensor,
        text: Tensor | None = None,
        mask: Tensor | None = None,
        perturb: Tensor | None = None,
    ) -> Tensor:
        """(B, N, D), (B, E), and for words (B, L, D) and (B, 1, 1, L): (B, N, D)."""
        half = self.patches
        shift1, scale1, gate1, shift2, scale2, gate2 = half.modulations(emb)
        q, k, v = half.asked(h, shift1, scale1)
        h = half.mixed(h, unmixed(attend(q, k, v), v, perturb), gate1)
        if self.words is not None and text is not None:
            h = self.words(h, text, mask)
        return half.thought(h, shift2, scale2, gate2)


class Cross(nn.Module):
    """h + attention of all patches to the words; begins as nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.heads = heads_of(width)
        self.norm = nn.LayerNorm(width)
        self.q, self.kv = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.leave = zeroed(nn.Linear(width, width))

    def forward(self, h: Tensor, text: Tensor, mask: Tensor | None) -> Tensor:
        batch, count, width = h.shape
        q = self.q(self.norm(h)).reshape(batch, count, self.heads, -1).transpose(1, 2)
        k, v = self.kv(text).reshape(batch, text.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = attend(q, k, v, mask).transpose(1, 2).reshape(batch, count, width)
        out: Tensor = h + self.leave(y)
        return out


class JointBlock(Repeated):
    """Patches and words attend to all of both; each stream has its own weights."""

    matrices = ("qkv", "leave", "widen", "narrow")

    def __init__(self, width: int, dropout: float, last: bool) -> None:
        super().__init__()
        self.patches, self.words = Half(width, dropout), Half(width, dropout)
        self.last = last

    def forward(
        self,
        h: Tensor,
        emb: Tensor,
        text: Tensor,
        mask: Tensor,
        perturb: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(B, N, D), (B, E), (B, L, D), (B, 1, 1, L): both streams again."""
        one, other = self.patches.modulations(emb), self.words.modulations(emb)
        q, k, v = self.patches.asked(h, *one[:2])
        tq, tk, tv = self.words.asked(text, *other[:2])
        seen = F.pad(mask, (h.shape[1], 0), value=True)
        keys, values = torch.cat((k, tk), 2), torch.cat((v, tv), 2)
        y = unmixed(attend(q, keys, values, seen), v, perturb)
        h = self.patches.thought(self.patches.mixed(h, y, one[2]), *one[3:])
        if self.last:
            return h, text
        text = self.words.mixed(text, attend(tq, keys, values, seen), other[2])
        return h, self.words.thought(text, *other[3:])


def zeroed(layer: nn.Linear) -> nn.Linear:
    """The layer with all its parameters 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
