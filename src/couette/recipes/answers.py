"""What a classifier's run draws as it goes: its answers to the same noised pictures."""

from __future__ import annotations

import torch
from PIL.Image import Image

from couette.contracts import Level
from couette.data import Dataset, to_float
from couette.denoiser import NoisyClassifier
from couette.model import Model
from couette.render import beside, grid
from couette.runtime import evaluating
from couette.schedules import mixed
from couette.tensors import Stream, expand, normal

NOISE = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""The levels shown, sigma/alpha."""


@torch.no_grad()
def answers(models: dict[str, Model], data: Dataset, seed: int) -> Image:
    """Six pictures, one a row, at rising noise: the likeliest class and its probability.

    Args:
        models: assembled around classifiers' networks, by the name above their sheet.
        data: held-out or training pictures with labels.
        seed: of the noise.
    """
    index = torch.linspace(0, len(data) - 1, min(6, len(data))).long()
    sheets = {}
    for name, model in models.items():
        device = model.denoiser.runtime.device
        clean = model.codec.encode(to_float(data.pictures(index))).to(device)
        eps = normal(seed, torch.stack((index, index), 1), Stream.SAMPLING, clean.shape[1:])
        shown, words = [], []
        with evaluating(model.network):
            for noise in NOISE:
                t = _time(model, noise)
                level = model.denoiser.corruption.schedule.level(t)
                x = mixed(clean, Level(*(expand(part, clean) for part in level)), eps.to(device))
                likely = NoisyClassifier(model.denoiser)(x, t).exp().max(1)
                shown.append(model.codec.decode(x / expand(torch.hypot(*level), x)).cpu())
                classes = (model.config.classes[i] for i in likely.indices.tolist())
                words.append(
                    [f"{c} {p:.2f}" for c, p in zip(classes, likely.values.tolist(), strict=True)]
                )
        sheets[name] = grid(
            torch.stack(shown, 1).flatten(0, 1),
            columns=len(NOISE),
            labels=[word for row in zip(*words, strict=True) for word in row],
            column_titles=[f"σ/α = {noise:g}" for noise in NOISE],
        )
    return beside(sheets)


def _time(model: Model, noise: float) -> torch.Tensor:
    """Where sigma/alpha is `noise`."""
    schedule = model.denoiser.corruption.schedule
    return schedule.time(-2 * torch.tensor(noise, dtype=torch.float64).log())
