"""The contrastive objective: which caption belongs to which picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from couette.contracts import Batch, Losses, Objective
from couette.errors import ConfigError
from couette.networks.clip import Clip
from couette.registry import OBJECTIVES
from couette.runtime import Runtime

_EMPTY = 2
"""Tokens of a caption without words: its start and its end."""


@OBJECTIVES.register("contrastive", of="network")
class ContrastiveObjective(Objective):
    """Of all captions of a batch the right one for each picture, and the other way round.

    The mean of both cross-entropies of the scaled cosines (Radford et al. 2021, fig. 3). Captions
    that say the same are equally right (Yang et al. 2022, "UniCL", eq. 3): sets repeat them.
    Pictures without a caption teach nothing. Over several processes each compares its own rows with
    those of all; the mean of their losses is that of one process with the whole batch. When to use
    it: for the network `clip`.

    Args:
        network: the `Clip`, in place on the runtime's device.
        runtime: where and in what arithmetic it runs.
        seed: of no use here; dropout follows the run's.

    Raises:
        ConfigError: another kind of network.
    """

    couples = True

    def __init__(self, network: nn.Module, runtime: Runtime, seed: int) -> None:
        super().__init__()
        if not isinstance(network, Clip):
            raise ConfigError(
                f"The objective 'contrastive' trains the network 'clip', not "
                f"{type(network).__name__}; give --network clip."
            )
        self.network, self.runtime = network, runtime

    def phases(self) -> Mapping[str, list[nn.Parameter]]:
        return {"network": list(self.network.parameters())}

    def updated(self, step: int) -> None:
        self.network.blunted()

    def forward(self, batch: Batch, phase: str = "network") -> Losses:
        """Losses of a batch, (B,), with "error", 1 where another caption was nearest to the
        picture, and "scale", that of the cosines."""
        text, mask = batch.cond["text"], batch.cond["text_mask"]
        x = batch.data.contiguous(memory_format=self.runtime.memory_format)
        with self.runtime.autocast():
            pictures = self.network.look(x)
            _, words = self.network.read(text, mask)
        says = (mask.sum(1) > _EMPTY).float()
        all_text, all_says = _everyones(text), _everyones(says)
        same = (text[:, None] == all_text).all(2) & (all_says[None] > 0)
        scale = self.network.scale
        to_words = _matched(scale * pictures @ _everyones(words).mT, same, all_says)
        to_pictures = _matched(scale * words @ _everyones(pictures).mT, same, all_says)
        loss = (to_words.loss + to_pictures.loss) / 2 * says
        # A mean over those that say something, whatever the trainer takes the mean of.
        loss = loss * (len(all_says) / all_says.sum().clamp_min(1))
        wrong = (~same.gather(1, to_words.best[:, None])[:, 0]).float() * says
        return Losses(loss, {"error": wrong, "scale": scale.detach().expand(len(x))})


class _Matched(NamedTuple):
    """The cross-entropy of rows of logits (B, N), and the most likely column of each."""

    loss: Tensor
    best: Tensor


def _matched(logits: Tensor, same: Tensor, says: Tensor) -> _Matched:
    """Columns that say nothing are no choice; the right ones share the probability evenly."""
    logits = logits.masked_fill(says[None] == 0, -torch.inf)
    # A row without a right column says nothing itself: any finite value will do.
    logits = torch.where(same.any(1, keepdim=True), logits, torch.zeros_like(logits))
    share = same / same.sum(1, keepdim=True).clamp_min(1)
    likely = logits.log_softmax(1).masked_fill(~same, 0)
    return _Matched(-(share * likely).sum(1), logits.argmax(1).detach())


def _everyones(rows: Tensor) -> Tensor:
    """The rows of all processes, with gradient, in the order of their ranks."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return rows
    gathered: Tensor = _Gathered.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


class _Gathered(torch.autograd.Function):
    """The rows of all ranks; their gradient is the sum of what all ranks make of them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, rows.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.chunk(dist.get_world_size())[dist.get_rank()]
