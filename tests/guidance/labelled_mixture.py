"""Points of two classes, each normal, whose exact answers are known: told, untold, and p(y | x)."""

from __future__ import annotations

import torch
from torch import Tensor

from couette.contracts import Cond, Corruption, Prediction, Schedule
from couette.guidance import Terms
from worlds import draw, schedule

MEANS = torch.tensor([[1.5, -0.5], [-1.0, 1.0]], dtype=torch.float64)[..., None, None]
PRIOR = torch.tensor([0.3, 0.7], dtype=torch.float64)
STD = 0.6
CLASSES = 2
LABEL = {"label": torch.tensor([0, 1, 0, 1, 1])}
NONE = {"label": torch.full((5,), CLASSES)}
POINTS = 1.7 * draw(5, 2, 1, 1)
SCHEDULES = ("linear", "cosine", "edm", "flow")


def at(noise: float, corruption: Corruption) -> Tensor:
    """The time at which sigma/alpha is `noise`."""
    return corruption.schedule.time(-2 * torch.tensor(noise, dtype=torch.float64).log())


class Mixture:
    """x0 | y is N(m_y, s²), so x_t | y is N(alpha·m_y, alpha²s² + sigma²).

    E[x0 | x_t, y] = m_y + alpha·s²/(alpha²s² + sigma²)·(x_t − alpha·m_y); untold it is the mean of
    these over p(y | x_t). Float64 throughout. It counts its passes and their rows.

    Args:
        schedule: of the corruption.
        shifted: added to both means: another model of the same data.
        labelled: whether it can be told a label; else one is an error.
    """

    def __init__(self, schedule: Schedule, shifted: float = 0.0, labelled: bool = True) -> None:
        self.corruption = Corruption(schedule)
        self.means, self.labelled = MEANS + shifted, labelled
        self.rows: list[int] = []

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        assert self.labelled or "label" not in cond
        self.rows.append(len(x))
        level = self.corruption.schedule.level(t)
        gain = level.alpha * STD**2 / ((level.alpha * STD) ** 2 + level.sigma**2)
        each = self.means + gain * (x[:, None] - level.alpha * self.means)  # (B, K, 2, 1, 1)
        weight = torch.nn.functional.one_hot(cond["label"], CLASSES + 1)[:, :-1].double()
        untold = cond["label"] == CLASSES
        weight = torch.where(untold[:, None], self.log_p(x, t).exp(), weight)
        return Prediction((weight[..., None, None, None] * each).sum(1))

    def log_p(self, x: Tensor, t: Tensor) -> Tensor:
        """log p(y | x_t), (B, K): Bayes' rule."""
        level = self.corruption.schedule.level(t)
        variance = (level.alpha * STD) ** 2 + level.sigma**2
        distance = (x[:, None] - level.alpha * self.means).square().sum((2, 3, 4))
        return (PRIOR.log() - distance / (2 * variance)).log_softmax(1)


class Untold:
    """The mixture as a network without labels knows it."""

    def __init__(self, mixture: Mixture) -> None:
        self.mixture, self.corruption = mixture, mixture.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        assert "label" not in cond
        return self.mixture(x, t, {"label": torch.full((len(x),), CLASSES)})


def terms(scale: float, mixture: Mixture, guide: Mixture | None = None) -> Terms:
    """The terms of the five points, with all that any method may ask for at hand."""
    return Terms(scale, NONE, lambda path: guide or mixture, lambda path: mixture.log_p)


def mixture(text: str = "edm", **given: float) -> Mixture:
    return Mixture(schedule(text), **given)
