"""The classifier's objective: corrupt, decide, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import cast

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from couette.config import DiffusionConfig
from couette.contracts import Batch, Cond, Losses, Objective
from couette.denoiser import Denoiser, NoisyClassifier
from couette.registry import OBJECTIVES, TIMES
from couette.schedules import log_snr
from couette.tensors import Stream, uniform
from couette.training.diffusion import corrupted


@OBJECTIVES.register("classifier")
class NoisyClassifierObjective(Objective):
    """Cross-entropy of the label at random noise levels (Dhariwal & Nichol 2021, sec. 4).

    Times and noise are drawn as the diffusion objective draws them. −log p(y | x_t, t). When to use
    it: for the classifier of classifier guidance; the recipe `classifier` has it.

    Args:
        reader: the network, which gives logits, with its corruption and what it is told.
        config: how times are drawn.
        untold: of no use here.
        seed: the run's seed.
    """

    def __init__(self, reader: Denoiser, config: DiffusionConfig, untold: Cond, seed: int) -> None:
        super().__init__()
        self.classify = NoisyClassifier(reader)
        self.network = cast(nn.Module, reader.network)
        self.times: Callable[..., Tensor] = TIMES.bind(config.times)
        self.seed = seed

    def phases(self) -> Mapping[str, list[nn.Parameter]]:
        return {"network": list(self.network.parameters())}

    def forward(self, batch: Batch, phase: str = "network") -> Losses:
        """Losses of a batch, (B,), with log-SNR and "error", 1 where the answer was wrong."""
        schedule = self.classify.corruption.schedule
        t = self.times(schedule, uniform(self.seed, batch.keys, Stream.TIME).double() + 2.0**-25)
        x = corrupted(batch, t, self.classify.corruption, self.seed)
        label = batch.cond["label"]
        logits = self.classify.logits(x, t)
        loss = cross_entropy(logits, label, reduction="none")
        error = (logits.argmax(1) != label).float()
        return Losses(loss, {"log_snr": log_snr(schedule.level(t)), "error": error})
