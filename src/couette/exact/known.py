"""What every world with a known answer has in common: it is a Denoise, and more than one."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from couette.contracts import Cond, Corruption, Prediction, Schedule
from couette.errors import InputError, ShapeError
from couette.networks.common import refuse_unknown
from couette.tensors import expand

TINY = 1e-200
"""Stands for a variance of 0: far below all that matters, far above float64's smallest number."""


class Answer(NamedTuple):
    """All there is to know at x_t: E[x0 | x_t] (B, D), ∇ log p(x_t) (B, D), log p(x_t) (B,)."""

    x0: Tensor
    score: Tensor
    log_density: Tensor


class Known(nn.Module):
    """Data whose true denoiser is known in closed form, under any schedule with normal noise.

    A `Denoise`: `world(x, t, cond)` is E[x0 | x_t]. It computes in float64, whatever dtype it is
    given, and is differentiable in x. Uniform noise is left out: once a sampler has moved, x_t is
    no longer a sum of a picture and such noise, so there is no posterior to know.

    Args:
        schedule: what x_t is.
        shape: (C, H, W) of one x0.
        prior: (classes,) the probability of each class; empty without classes.
    """

    def __init__(self, schedule: Schedule, shape: Sequence[int], prior: Tensor) -> None:
        super().__init__()
        self.corruption = Corruption(schedule)
        self.shape = tuple(shape)
        self.classes = len(prior)
        self.wants = frozenset({"label"} if self.classes else ())
        self.register_buffer("prior", prior.double())

    def under(self, schedule: Schedule) -> Self:
        """The same world under another schedule; it shares this one's tensors."""
        other = copy.copy(self)
        other.corruption = Corruption(schedule)
        return other

    @abstractmethod
    def answer(self, x: Tensor, alpha: Tensor, sigma: Tensor, label: Tensor | None) -> Answer:
        """The answer at x (B, D), with alpha and sigma (B, 1) or (1, 1), all float64.

        label: (B,) int64, where `classes` itself means "any"; None for any.
        """

    def forward(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        """E[x0 | x_t, label].

        Args:
            x: (B, C, H, W) at time t.
            t: 0-d or (B,), in [0, 1].
            cond: "label" (B,) where the world has classes; without it, any class.

        Raises:
            ShapeError: x of another size than the world's.
            ConfigError: told something that it does not know.
        """
        return Prediction(self._at(x, t, cond).x0.reshape(x.shape).to(x.dtype))

    def log_density(self, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        """log p(x_t | label) in nats, (B,) float64. Arguments as for the denoiser; sigma > 0."""
        return self._at(x, t, cond or {}).log_density

    def score(self, x: Tensor, t: Tensor, cond: Cond | None = None) -> Tensor:
        """∇_x log p(x_t | label), of x's shape. Arguments as for the denoiser; sigma > 0."""
        return self._at(x, t, cond or {}).score.reshape(x.shape).to(x.dtype)

    def classify(self, x: Tensor, t: Tensor) -> Tensor:
        """p(label | x_t), (B, classes) float64, by Bayes' rule. Arguments as for the denoiser.

        Raises:
            InputError: a world without classes.
        """
        if not self.classes:
            raise InputError("This world has no classes, so there is nothing to classify.")
        labels = torch.arange(self.classes, device=x.device)
        likelihood = [self.log_density(x, t, {"label": label.expand(len(x))}) for label in labels]
        return (torch.stack(likelihood, 1) + self.get_buffer("prior").log()).softmax(1)

    def _at(self, x: Tensor, t: Tensor, cond: Cond) -> Answer:
        if tuple(x.shape[1:]) != self.shape:
            raise ShapeError(
                f"This world is made of {self.shape} (channels, height, width), not of "
                f"{tuple(x.shape[1:])}; give x as (B, {', '.join(map(str, self.shape))})."
            )
        refuse_unknown(cond, self.wants)
        flat = x.flatten(1).double()
        level = self.corruption.schedule.level(t)
        alpha, sigma = (expand(part.reshape(-1), flat) for part in level)
        return self.answer(flat, alpha, sigma, cond.get("label"))


class Ideal(nn.Module):
    """A known answer in a network's place: parameterization x0, told the time itself."""

    def __init__(self, world: Known) -> None:
        super().__init__()
        self.world, self.wants = world, world.wants

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        prediction: Prediction = self.world(x, told, cond)
        return prediction.x0


def prior_of(weights: Tensor, labels: Tensor | None, classes: int) -> Tensor:
    """The probability of each class, (classes,), from (K,) weights of what carries labels.

    Raises:
        InputError: labels that do not fit, or a class with nothing in it.
    """
    if labels is None:
        return weights.new_zeros(0)
    if labels.shape != weights.shape or int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise InputError(
            f"A world of {len(weights)} parts and {classes} classes needs that many labels in "
            f"0..{classes - 1}; got {tuple(labels.shape)} in {int(labels.min())}.."
            f"{int(labels.max())}."
        )
    prior = weights.new_zeros(classes).index_add(0, labels, weights)
    if not bool((prior > 0).all()):
        empty = int((prior <= 0).nonzero()[0])
        raise InputError(f"Class {empty} of this world is empty; give every class something.")
    return prior / prior.sum()
