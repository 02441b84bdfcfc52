"""A picture noised more and more, and what takes the noise away: a blur, one step, many steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

import torch
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from couette.config import SamplingConfig
from couette.contracts import Ask, Step
from couette.data import to_float
from couette.data.decode import Look, color
from couette.data.single import read_picture
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
from couette.generate import KeyedNoise, Walk, finished, pictures, said, steps
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
    rung = Rung(model, original, asked, sampling, seed, stride)
    columns = list(zip(*map(rung.at, times), strict=True))
    cells = torch.cat([torch.cat(column) for column in columns])
    note = f"Many steps: {said(sampling)}, but {stride:g} apart in t."
    sheet = grid(
        cells,
        columns=len(times),
        labels=[_near(each, original) for each in cells],
        column_titles=[_words(t) for t in times],
        row_titles=("noisy", "Gaussian blur", "one step", "many steps"),
    )
    return [still("ladder", sheet, note), still("strip", rung.strip(begin), note)]


def _given(target: Target, model: Model, picture: str | None, seed: int) -> Tensor:
    """(1, C, H, W) in [-1, 1], of the model's size."""
    config = model.config
    if picture is not None:
        look = Look(config.height, config.width, config.channels, color("white"))
        return read_picture(Path(picture), look)
    if not target.has_data:
        raise InputError(f"{target.described} has no data; give a picture: --picture FILE.")
    data = target.unseen
    return to_float(data.pictures(permutation(seed, 0, len(data))[:1]))


@dataclass(frozen=True)
class Rung:
    """A picture, (1, C, H, W) in [-1, 1], and how noise is taken from it."""

    model: Model
    original: Tensor
    asked: list[Ask]
    sampling: SamplingConfig
    seed: int
    stride: float

    @cached_property
    def z(self) -> Tensor:
        """The picture as the denoiser works on it."""
        return self.model.codec.encode(self.original.to(self.model.denoiser.runtime.device))

    @torch.no_grad()
    def at(self, t: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Noised to t, blurred, denoised in one step and in many, (1, C, H, W) each."""
        model, z = self.model, self.z
        corruption = model.denoiser.corruption
        when = _when(model, torch.tensor(t, dtype=torch.float64))
        level = corruption.schedule.level(when)
        index = torch.zeros(1, dtype=torch.int64)
        draw = KeyedNoise(self.seed, index, z.shape[1:], str(z.device), corruption.noise)
        x = expand(level.alpha, z) * z + expand(level.sigma, z) * draw(when, when)
        noisy = looked_at(model, x, when)
        scaled = looked_at(model, x / expand(level.alpha, z)) if float(level.alpha) > 0 else noisy
        tried = [gaussian(scaled, sigma).clamp(-1, 1) for sigma in (0.0, *BLURS)]
        blurred = max(tried, key=lambda each: float(peak_ratio(*_unit(each, self.original))))
        if t == 0:
            return noisy, blurred, self.original, self.original
        answer = predicted(model, x, when.reshape(1), self.asked).to(z)
        *_, last = self.walk(t)
        one = looked_at(model, answer).clamp(-1, 1)
        return noisy.clamp(-1, 1), blurred, one, finished(model, last.x)

    def walk(self, begin: float) -> Iterator[Step]:
        """Denoise from where the picture is noised to `begin`, in strides."""
        count = max(1, round(begin / self.stride))
        times = _when(self.model, torch.linspace(begin, 0, count + 1, dtype=torch.float64))
        # A table that ends with less noise has one end for all that lies beyond it.
        times = torch.unique(times).flip(0)

        def drive(walk: Walk) -> Iterator[Step]:
            return walk.down(walk.noised(self.z, times[0]), times)

        return steps(self.model, self.asked, seed=self.seed, sampling=self.sampling, drive=drive)

    def strip(self, begin: float) -> Image:
        """Every fifth of the many steps, and the last."""
        walked = list(self.walk(begin))
        shown = [step for step in walked if step.index % 5 == 0 or step is walked[-1]]
        left = [begin * (1 - (step.index + 1) / len(walked)) for step in shown]
        return strip(
            {
                "x": torch.cat([looked_at(self.model, step.x, step.t) for step in shown]),
                "predicted": torch.cat([looked_at(self.model, step.x0) for step in shown]),
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
