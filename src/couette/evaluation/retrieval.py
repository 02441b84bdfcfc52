"""Finding pictures by words and words by pictures, and how often the right ones are found.

Shapes: N pictures or texts, E embedding, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from couette.conditioners import Words
from couette.data import Dataset, Progress, to_float
from couette.errors import DataError
from couette.networks.clip import Clip
from couette.runtime import Runtime, evaluating
from couette.tensors import sent

_ROWS = 1024
"""Rows of similarities in memory at once."""


@dataclass(frozen=True)
class Recall:
    """How often what belongs to a query is among the k nearest, by k; `chance` is that of guessing.

    Attributes:
        to_text: a picture's caption, or one that says the same, among all captions.
        to_picture: a picture with the caption, or with one that says the same, among all pictures.
    """

    count: int
    to_text: dict[int, float]
    to_picture: dict[int, float]
    chance: dict[int, float]

    def lines(self) -> list[str]:
        """In words, a line each way."""
        lines = []
        for name, found in (("captions", self.to_text), ("pictures", self.to_picture)):
            shares = ", ".join(f"{share:.1%} within {k}" for k, share in found.items())
            last = max(found)
            chance = f"chance {self.chance[last]:.1%} within {last}"
            lines.append(f"Right {name} found, of {self.count:,}: {shares} ({chance}).")
        return lines


def recall(
    pictures: Tensor, texts: Tensor, captions: Sequence[str], at: Sequence[int] = (1, 5, 10)
) -> Recall:
    """Recall both ways.

    Args:
        pictures, texts: (N, E) of unit length, row by row a pair.
        captions: N; those that are equal are equally right.
        at: the k.

    Raises:
        DataError: no pairs, or not one caption for each.
    """
    if not len(pictures) or not len(pictures) == len(texts) == len(captions):
        raise DataError(
            f"Recall is measured on pictures with a caption each, not on {len(pictures)} pictures "
            f"with {len(captions)} captions."
        )
    kinds = {text: i for i, text in enumerate(dict.fromkeys(captions))}
    kind = torch.tensor([kinds[text] for text in captions])
    sizes = torch.bincount(kind)[kind].double()
    count = len(kind)
    ks = [k for k in at if k <= count] or [count]
    chance = {k: float((1 - _missed(count, sizes, k)).mean()) for k in ks}
    return Recall(
        count, _found(pictures, texts, kind, ks), _found(texts, pictures, kind, ks), chance
    )


def _found(queries: Tensor, answers: Tensor, kind: Tensor, ks: Sequence[int]) -> dict[int, float]:
    ranks = []
    for start in range(0, len(queries), _ROWS):
        rows = slice(start, start + _ROWS)
        alike = queries[rows] @ answers.mT
        right = kind[rows, None] == kind[None]
        best = alike.masked_fill(~right, -torch.inf).amax(1, keepdim=True)
        # Of equals the right one comes last, so that embeddings all alike, or not finite, find
        # nothing.
        ranks.append((~(alike < best) & ~right).sum(1))
    rank = torch.cat(ranks)
    return {k: float((rank < k).double().mean()) for k in ks}


def _missed(count: int, right: Tensor, k: int) -> Tensor:
    """The chance that k different answers out of `count` hold none of the `right` ones."""
    missed = torch.ones_like(right)
    for i in range(k):
        missed = missed * ((count - right - i) / (count - i)).clamp_min(0)
    return missed


def alike(texts: Tensor) -> Tensor:
    """The cosine of each text with each, (N, E) to (N, N)."""
    return texts @ texts.mT


def zero_shot(pictures: Tensor, classes: Tensor) -> Tensor:
    """The nearest of the classes' (K, E) descriptions for each picture (N, E): (N,) int64."""
    return (pictures @ classes.mT).argmax(1)


def nearest_pictures(query: Tensor, pictures: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The pictures (N, E) nearest to a query (E,): (count,) indices and cosines, nearest first."""
    found = (pictures @ query).topk(min(count, len(pictures)))
    return found.indices, found.values


@torch.no_grad()
def looked_at(network: Clip, pictures: Tensor, runtime: Runtime) -> Tensor:
    """Embeddings of pictures (N, C, H, W) in [-1, 1], (N, E) float32 on the CPU."""
    x = sent(pictures, runtime.device).contiguous(memory_format=runtime.memory_format)
    with evaluating(network), runtime.autocast():
        return network.look(x).cpu()


def embed_pictures(
    network: Clip,
    data: Dataset,
    index: Tensor,
    runtime: Runtime,
    batch: int = 128,
    progress: Progress | None = None,
) -> Tensor:
    """Embeddings of pictures at `index` (N,), (N, E) float32 on the CPU."""
    parts, done = [], 0
    for part in torch.split(index, batch):
        parts.append(looked_at(network, to_float(data.pictures(part)), runtime))
        done += len(part)
        if progress:
            progress("looking at pictures", done, len(index))
    return torch.cat(parts)


@torch.no_grad()
def embed_texts(
    network: Clip, words: Words, texts: Sequence[str], runtime: Runtime, batch: int = 256
) -> Tensor:
    """Embeddings of texts, (N, E) float32 on the CPU."""
    parts = []
    with evaluating(network), runtime.autocast():
        for start in range(0, len(texts), batch):
            told = words(texts[start : start + batch])
            rows = (sent(told[name], runtime.device) for name in ("text", "text_mask"))
            parts.append(network.read(*rows)[1].cpu())
    return torch.cat(parts)
