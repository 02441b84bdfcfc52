"""What a run draws as it goes: the same asks on the same noise, every time."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from PIL.Image import Image
from torch import Tensor

from couette.conditioners import Words
from couette.config import ModelConfig, SamplingConfig
from couette.contracts import Ask, Level
from couette.data import Dataset, to_float
from couette.evaluation.retrieval import embed_pictures, embed_texts, zero_shot
from couette.generate import finished, in_turn, shortened, steps
from couette.model import Model
from couette.networks.clip import Clip
from couette.recipes.answers import answers
from couette.render import beside, columns_for, dye, grid, strip
from couette.runtime import evaluating
from couette.schedules import mixed
from couette.tensors import Stream, expand, normal

PREVIEW_STEPS = 20
"""A look on the way needs no more steps than this."""

WORDED = 16
"""Captions that are drawn, of a model that reads them."""

Stop = Callable[[], bool]


def preview(models: dict[str, Model], data: Dataset, seed: int, stop: Stop) -> Image | None:
    """Samples of each model side by side; what a one-step denoiser makes of noise; what a
    classifier answers.

    Args:
        models: by the name above their sheet ("weights", "average").
        data: held-out or training pictures, for denoisers and for points.
        seed: of the noise.
        stop: asked between sampling steps; True gives up.

    Returns:
        The sheet, or None where `stop` said so.
    """
    model = next(iter(models.values()))
    if model.config.objective.name == "classifier":
        return answers(models, data, seed)
    if model.config.objective.name == "autoencoder":
        return reconstructed(models, data)
    if model.config.objective.name == "contrastive":
        return matched(models, data)
    times = model.config.diffusion.times
    if times.name == "fixed":
        return denoised(models, data, float(times.settings.get("sigma", 0.5)), seed)
    count = 1000 if model.is_points else _count(len(model.config.classes))
    reads = model.conditioner.words is not None and data.texts is not None
    texts = tuple(dict.fromkeys(data.texts or ()))[:WORDED] if reads else ()
    drawn: dict[str, Tensor] = {}
    for name, each in models.items():
        asked = [Ask(words=text) for text in texts] or in_turn(each, count)
        pictures = _sample(each, asked, seed, stop)
        if pictures is None:
            return None
        drawn[name] = pictures
    if model.is_points:
        clouds = [data.values.reshape(-1, 2), *(each.reshape(-1, 2) for each in drawn.values())]
        return dye(clouds, titles=["data", *drawn])
    columns = None if texts else columns_for(len(model.config.classes))
    sheets = {name: grid(each, columns=columns, labels=texts) for name, each in drawn.items()}
    return beside(sheets)


def reconstructed(models: dict[str, Model], data: Dataset) -> Image:
    """Eight pictures, and what each autoencoder makes of their latents."""
    index = torch.linspace(0, len(data) - 1, min(8, len(data))).long()
    clean = to_float(data.pictures(index))
    rows = {"pictures": clean}
    for name, each in models.items():
        x = clean.to(each.denoiser.runtime.device)
        with torch.no_grad(), evaluating(each.network):
            rows[name] = each.network(x, torch.zeros(len(x)), {}).float().cpu()
    return strip(rows)


def matched(models: dict[str, Model], data: Dataset) -> Image:
    """Pictures, each above the caption that each encoder thinks is its own, of sixteen times as
    many."""
    index = torch.linspace(0, len(data) - 1, min(256, len(data))).long()
    texts = [(data.texts or ())[i] for i in index.tolist()]
    shown = index[:: max(1, len(index) // WORDED)][:WORDED]
    sheets = {}
    for name, each in models.items():
        network, words = cast(Clip, each.network), each.conditioner.words
        assert isinstance(words, Words)
        runtime = each.denoiser.runtime
        found = embed_texts(network, words, texts, runtime)
        best = zero_shot(embed_pictures(network, data, shown, runtime), found)
        pictures = to_float(data.pictures(shown))
        sheets[name] = grid(pictures, labels=[texts[i] for i in best.tolist()])
    return beside(sheets)


def denoised(models: dict[str, Model], data: Dataset, sigma: float, seed: int) -> Image:
    """Eight pictures: clean, with noise sigma, and each model's one-step prediction."""
    model = next(iter(models.values()))
    index = torch.arange(min(8, len(data)))
    clean = model.codec.encode(to_float(data.pictures(index)))
    schedule = model.denoiser.corruption.schedule
    t = schedule.time(torch.tensor(sigma, dtype=torch.float64).log() * -2)
    eps = normal(seed, torch.stack((index, index), 1), Stream.SAMPLING, clean.shape[1:])
    level = schedule.level(t)
    noised = mixed(clean, Level(expand(level.alpha, clean), expand(level.sigma, clean)), eps)
    rows = {"clean": clean, f"σ = {sigma:g}": noised}
    nothing = [Ask()] * len(index)
    for name, each in models.items():
        device = each.denoiser.runtime.device
        cond = {key: value.to(device) for key, value in each.conditioner(nothing).items()}
        with torch.no_grad(), evaluating(each.network):
            rows[name] = each.denoiser(noised.to(device), t, cond).x0.cpu()
    return strip({name: model.codec.decode(row) for name, row in rows.items()})


def preview_sampling(config: ModelConfig) -> SamplingConfig:
    """The model's own sampling, at most `PREVIEW_STEPS` steps long: a look, not a judgement."""
    return shortened(config.sampling, PREVIEW_STEPS)


def _count(classes: int) -> int:
    """A few rows with a column for each class, or a square."""
    columns = columns_for(classes) or 0
    return columns * max(2, 40 // columns) if columns else 36


def _sample(model: Model, asked: list[Ask], seed: int, stop: Stop) -> Tensor | None:
    with evaluating(model.network):
        for step in steps(model, asked, seed=seed, sampling=preview_sampling(model.config)):
            if stop():
                return None
            last = step.x
        return finished(model, last)
