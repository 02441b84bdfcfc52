"""A picture noised more and more, and what takes the noise away: a blur, one step, many steps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import torch
from PIL import Image as Pillow
from pydantic import Field
from torch import Tensor

from couette.config import SamplingConfig
from couette.contracts import Ask, Step
from couette.data import to_float
from couette.data.decode import Look, color, read_picture
from couette.editing.filters import gaussian
from couette.errors import InputError
from couette.evaluation.reconstruction import peak_ratio, similarity
from couette.figures.asked import asks, looked_at, predicted, walk_of
from couette.figures.registry import (
    Guidance,
    Label,
    Picture,
    Prompt,
    Sampler,
    Seed,
    figure,
    still,
)
from couette.figures.target import Target
from couette.generate import KeyedNoise, Walk, finished, pictures, said
from couette.generate import steps as walked
from couette.model import Model
from couette.render import grid, strip
from couette.schedules import log_snr
from couette.schedules.tables import Linear
from couette.tensors import expand, permutation

Time = Annotated[float, Field(ge=0, lt=1)]

BLURS = (0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Deviations of the Gaussian that are tried, in pixels."""


@figure("ladder", needs=("model", "pictures", "chain"))
def ladder(
    target: Target,
    *,
    picture: Annotated[
        str | None, Field(description="a file; a held-out picture of the data when not given")
    ] = None,
    times: Annotated[
        tuple[Time, ...],
        Field(min_length=1, description="noise levels: t of DDPM's table, in [0, 1)"),
    ] = (0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875),
    stride: Annotated[float, Field(gt=0, le=1, description="of the many steps, in t")] = 0.03,
    begin: Annotated[Time, Field(description="where the strip of the many steps begins")] = 0.69,
    label: Label = None,
    prompt: Prompt = (),
    guidance: Guidance = None,
    sampler: Sampler = None,
    seed: Seed = 0,
) -> list[Picture]:
    """A picture at rising noise, and denoised by a blur, in one step, and in many.

    The blur is the one that comes nearest to the original, which no one who has only the noisy
    picture could choose. Below each picture stand its PSNR and SSIM. The strip shows every fifth of
    the many steps. Times are those of DDPM's linear table, 0 to 1 for its thousand entries; on
    other schedules the time is taken at which there is as much noise.

    Raises:
        InputError: no picture and no data to take one from.
        DataError: a file that can't be read.
    """
    model = target.model
    sampling = walk_of(model, None, guidance, sampler)
    original = _given(target, model, picture, seed)
    asked = asks(model, 1, label, prompt) if label is not None or prompt else [Ask()]
    z = model.codec.encode(original.to(model.denoiser.runtime.device))
    rows = [_rungs(model, z, asked, sampling, seed, t, stride, original) for t in times]
    columns = list(zip(*rows, strict=True))
    cells = torch.cat([torch.cat(column) for column in columns])
    words = [_words(t) for t in times]
    note = f"Many steps: {said(sampling)}, but {stride:g} apart in t."
    sheet = grid(
        cells,
        columns=len(times),
        labels=[_near(each, original) for each in cells],
        column_titles=words,
        row_titles=("noisy", "Gaussian blur", "one step", "many steps"),
    )
    return [
        still("ladder", sheet, note),
        still("strip", _strip(model, z, asked, sampling, seed, begin, stride), note),
    ]


def _given(target: Target, model: Model, picture: str | None, seed: int) -> Tensor:
    """(1, C, H, W) in [-1, 1], of the model's size."""
    config = model.config
    if picture is not None:
        look = Look(config.height, config.width, config.channels, color("white"))
        pixels = torch.from_numpy(read_picture(Path(picture), look).copy())
        return to_float(pixels.permute(2, 0, 1)[None])
    if target.kind == "model":
        raise InputError(f"{target.described} has no data; give a picture: --picture FILE.")
    data = target.unseen
    return to_float(data.pictures(permutation(seed, 0, len(data))[:1]))


@torch.no_grad()
def _rungs(
    model: Model,
    z: Tensor,
    asked: list[Ask],
    sampling: SamplingConfig,
    seed: int,
    t: float,
    stride: float,
    original: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noised to t, blurred, denoised in one step and in many, (1, C, H, W) each."""
    when = _when(model, torch.tensor(t, dtype=torch.float64))
    level = model.denoiser.corruption.schedule.level(when)
    index, noise = torch.zeros(1, dtype=torch.int64), model.denoiser.corruption.noise
    eps = KeyedNoise(seed, index, z.shape[1:], str(z.device), noise)(when, when)
    x = expand(level.alpha, z) * z + expand(level.sigma, z) * eps
    noisy = looked_at(model, x, when)
    scaled = looked_at(model, x / expand(level.alpha, z)) if float(level.alpha) > 0 else noisy
    tried = [gaussian(scaled, sigma).clamp(-1, 1) for sigma in (0.0, *BLURS)]
    blurred = max(tried, key=lambda each: float(peak_ratio(*_unit(each, original))))
    if t == 0:
        return noisy, blurred, original, original
    one = looked_at(model, predicted(model, x, when.reshape(1), asked).to(z)).clamp(-1, 1)
    many = list(_walk(model, z, asked, sampling, seed, t, stride))[-1]
    return noisy.clamp(-1, 1), blurred, one, finished(model, many.x)


def _walk(
    model: Model,
    z: Tensor,
    asked: list[Ask],
    sampling: SamplingConfig,
    seed: int,
    begin: float,
    stride: float,
) -> Iterator[Step]:
    """Denoise z from where it is noised to `begin`, in strides."""
    count = max(1, round(begin / stride))
    times = _when(model, torch.linspace(begin, 0, count + 1, dtype=torch.float64))
    # A table that ends with less noise has one end for all that lies beyond it.
    times = torch.unique(times).flip(0)

    def drive(walk: Walk) -> Iterator[Step]:
        return walk.down(walk.noised(z, times[0]), times)

    return walked(model, asked, seed=seed, sampling=sampling, drive=drive)


def _strip(
    model: Model,
    z: Tensor,
    asked: list[Ask],
    sampling: SamplingConfig,
    seed: int,
    begin: float,
    stride: float,
) -> Pillow.Image:
    steps = list(_walk(model, z, asked, sampling, seed, begin, stride))
    shown = [step for step in steps if step.index % 5 == 0 or step is steps[-1]]
    left = [begin * (1 - (step.index + 1) / len(steps)) for step in shown]
    return strip(
        {
            "x": torch.cat([looked_at(model, step.x, step.t) for step in shown]),
            "predicted": torch.cat([looked_at(model, step.x0) for step in shown]),
        },
        columns=[_words(t) for t in left],
    )


def _when(model: Model, t: Tensor) -> Tensor:
    """The model's own times with the noise of DDPM's linear table at t, any shape, float64."""
    own = model.denoiser.corruption.schedule
    if isinstance(own, Linear) and torch.equal(own.betas, Linear().betas):
        return t
    return torch.where(t > 0, own.time(log_snr(Linear().level(t))), 0)


def _words(t: float) -> str:
    return f"t = {round(1000 * t)}"


def _unit(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    return (a.reshape(b.shape) + 1) / 2, (b + 1) / 2


def _near(picture: Tensor, original: Tensor) -> str:
    pair = _unit(picture, original)
    ratio = float(peak_ratio(*pair))
    return f"{'∞' if ratio == float('inf') else f'{ratio:.1f}'} dB, {float(similarity(*pair)):.2f}"


@figure("counts", needs=("model", "pictures", "chain"))
def counts(
    target: Target,
    *,
    counts: Annotated[
        tuple[Annotated[int, Field(ge=1, le=100_000)], ...],
        Field(min_length=1, description="numbers of steps, a row each"),
    ] = (2, 4, 6, 8, 12, 16),
    label: Label = None,
    prompt: Prompt = (),
    guidance: Guidance = None,
    sampler: Sampler = None,
    seed: Seed = 0,
) -> list[Picture]:
    """Prompts, or classes, against the number of steps, from the same noise.

    Each prompt is a column; without one, each class, and of a model of neither four pictures.
    """
    model = target.model
    classes = model.conditioner.classes
    columns = len(prompt) or (1 if label is not None else len(classes)) or 4
    asked = asks(model, columns, label, prompt)
    rows = {}
    for count in counts:
        sampling = walk_of(model, count, guidance, sampler)
        rows[f"{count} steps"] = torch.cat(
            list(pictures(model, asked, seed=seed, sampling=sampling))
        )
    titles = [a.words or (classes[a.label] if a.label is not None else "") for a in asked]
    note = f"Drawn with {said(sampling)} in the last row."
    return [still("counts", strip(rows, columns=titles if any(titles) else ()), note)]
