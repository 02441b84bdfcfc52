"""The training loop. One loop for every objective; it knows no sampler and writes no files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from couette.config import TrainingConfig
from couette.contracts import Batch, Losses, Objective
from couette.errors import CheckpointError, ConfigError, Diverged
from couette.runtime import Recorded
from couette.training.average import PowerAverage
from couette.training.optimizers import PhaseOptimizer, matrices_of
from couette.training.plan import Plan

PATIENCE = 10
"""Updates in a row that may be refused for non-finite gradients before the run stops."""


@dataclass(frozen=True)
class Progress:
    """One step, after the optimizer, the average and the counter have moved.

    step: from 1. total: planned steps, None while not known. epoch: passes over the data.
    loss: mean over the batch, as the objective tells it (`Losses`). logs: (B,) figures of the
    objective. norm: of the gradient, before clipping. applied: False where the update was refused
    because it was not finite. samples: (B,) the indices of this rank's part of the batch.

    Loss, norm and applied are 0-d tensors, on the device: to read one is to wait for the step, so
    that is left to whoever wants to know.
    """

    step: int
    total: int | None
    epoch: float
    seconds: float
    lr: float
    loss: Tensor
    norm: Tensor
    logs: Mapping[str, Tensor]
    applied: Tensor
    samples: Tensor


class Trainer:
    """Minimises an objective over a stream of batches, resumable to the bit.

    Args:
        objective: what is minimised; its child modules are what is saved.
        batches: the batch of a step, counted from 0.
        config: optimizer and length.
        plan: how long, and the learning rate along it.
        average: the running average, or None.
        second: another running average, or None.
        graph: whether what follows the backward pass is recorded and replayed, on a card.

    Raises:
        ConfigError: an objective whose samples are coupled, split by `accumulate`.
    """

    def __init__(
        self,
        objective: Objective,
        batches: Callable[[int], Batch],
        config: TrainingConfig,
        plan: Plan,
        average: PowerAverage | None = None,
        *,
        second: PowerAverage | None = None,
        graph: bool = False,
    ) -> None:
        if objective.couples and config.accumulate > 1:
            raise ConfigError("This objective compares the samples of a batch; set accumulate 1.")
        self.objective, self.batches, self.config = objective, batches, config
        self.plan = plan
        self.averages = {"average": average, "second": second}
        self.step = 0
        self._device = next(p for ps in objective.phases().values() for p in ps).device
        self._looks = 1 if self._device.type == "cpu" else PATIENCE  # steps between; a card waits
        self._refused = torch.zeros((), dtype=torch.int64, device=self._device)
        self._updates = torch.zeros_like(self._refused)
        self._applied = torch.ones_like(self._refused, dtype=torch.bool)
        matrices = matrices_of(objective)
        self.optimizers = {
            phase: PhaseOptimizer(parameters, config, matrices, graph)
            for phase, parameters in objective.phases().items()
        }
        recorded = graph and any(self.averages.values())
        self._average = Recorded(self._averaged) if recorded else self._averaged

    @property
    def average(self) -> PowerAverage | None:
        """The running average that is drawn with."""
        return self.averages["average"]

    def run(self) -> Iterator[Progress]:
        """Train to the end of the plan.

        Raises:
            Diverged: gradients were not finite `PATIENCE` times in a row.
        """
        self.objective.train()
        while not self.plan.done(self.step):
            yield self._advance()

    def _advance(self) -> Progress:
        lr = self.plan.lr(self.step)
        # Dropout draws from torch's own generator: make that, too, a function of the step.
        torch.manual_seed((self.config.seed * 0x9E3779B97F4A7C15 + self.step) % 2**63)
        batch = self.batches(self.step)
        # Batch statistics move in the forward pass, before anything is known to be finite.
        before = [buffer.clone() for buffer in self.objective.buffers()]
        applied = torch.ones((), dtype=torch.bool, device=self._device)
        loss = norm = torch.zeros((), device=self._device)
        logs: dict[str, Tensor] = {}
        for phase, optimizer in self.optimizers.items():
            losses = self._gradients(batch, phase)
            loss = loss + losses.logs.get("loss", losses.loss).mean()
            logs |= losses.logs
            sound = losses.loss.mean().isfinite()
            norm, moved = optimizer.step(lr / self.config.lr, sound)
            applied = applied & moved
            self.objective.zero_grad(set_to_none=True)
        for buffer, value in zip(self.objective.buffers(), before, strict=True):
            buffer.copy_(torch.where(applied, buffer, value))
        self._count(applied, batch)
        return Progress(
            self.step,
            self.plan.total,
            self.plan.epoch(self.step),
            self.plan.seconds,
            lr,
            loss,
            norm,
            logs,
            applied,
            batch.keys[:, 0],
        )

    def _count(self, applied: Tensor, batch: Batch) -> None:
        self.step += 1
        self._refused = torch.where(applied, 0, self._refused + 1)
        self._updates += applied
        self._applied.copy_(applied)
        self.objective.updated(self.step)
        self._average()
        self.plan.passed(self.step)
        if self.step % self._looks == 0 and int(self._refused) >= PATIENCE:
            raise Diverged(
                f"Gradients were not finite {int(self._refused)} times in a row, up to step "
                f"{self.step} "
                f"(samples {batch.keys[:4, 0].tolist()}, …). No such update was applied. Lower "
                "--training.lr, or use --runtime.dtype float32."
            )

    def _gradients(self, batch: Batch, phase: str) -> Losses:
        """Backward passes over the batch's parts; the losses of the whole batch, detached."""
        parts = list(_split(batch, self.config.accumulate))
        found = []
        for part in parts:
            losses = self.objective(part, phase)
            (losses.loss.mean() / len(parts)).backward()
            found.append(losses)
        logs = {name: torch.cat([each.logs[name] for each in found]) for name in found[0].logs}
        return Losses(torch.cat([each.loss.detach() for each in found]), logs)

    def _averaged(self) -> tuple[Tensor, ...]:
        for average in filter(None, self.averages.values()):
            average.update(self._updates, self._applied)
        return ()

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All tensors of the state, by file: a child module each, the averages, the optimizers."""
        files = {name: module.state_dict() for name, module in self.objective.named_children()}
        for name, average in self.averages.items():
            if average is not None:
                files[name] = average.network.state_dict()
        files["optimizer"] = {
            f"{phase}.{name}": value
            for phase, optimizer in self.optimizers.items()
            for name, value in optimizer.tensors().items()
        }
        return files

    def state(self) -> dict[str, Any]:
        """The rest of the state, as JSON."""
        return {
            "step": self.step,
            "updates": int(self._updates),
            "refused": int(self._refused),
            "plan": self.plan.state(),
        }

    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> None:
        """Take up a saved state. The weights must have been checked against the modules.

        Raises:
            CheckpointError: a part is missing or of another shape.
        """
        try:
            for name, module in self.objective.named_children():
                module.load_state_dict(dict(tensors[name]))
            for name, average in self.averages.items():
                if average is not None:
                    average.network.load_state_dict(dict(tensors[name]))
            for phase, optimizer in self.optimizers.items():
                own = phase + "."
                saved = tensors["optimizer"].items()
                optimizer.load({k.removeprefix(own): v for k, v in saved if k.startswith(own)})
            self.step = int(state["step"])
            self._refused.fill_(int(state["refused"]))
            self._updates.fill_(int(state["updates"]))
            self.plan.load(state["plan"])
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"The checkpoint does not fit this run ({error}); it was made with other settings."
            ) from None


def _split(batch: Batch, parts: int) -> Iterator[Batch]:
    """A batch in equal parts."""
    if parts == 1:
        yield batch
        return
    size = batch.data.shape[0] // parts
    for first in range(0, size * parts, size):
        here = slice(first, first + size)
        cond = {name: value[here] for name, value in batch.cond.items()}
        places = None if batch.places is None else batch.places[here]
        yield Batch(batch.data[here], cond, batch.keys[here], places)
