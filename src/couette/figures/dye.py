"""Dye in water: a cloud of points on its way to noise, and back."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from couette.codecs import Symmetric
from couette.config import Spec
from couette.contracts import Corruption
from couette.figures import forward
from couette.figures.asked import asks, moment_words, moments, walk_of
from couette.figures.registry import (
    Columns,
    Fps,
    Frames,
    Guidance,
    Label,
    Length,
    Picture,
    Sampler,
    Seed,
    figure,
    still,
)
from couette.figures.target import Target
from couette.generate import said
from couette.render import dye as panels
from couette.render import dye_frames, spread

Cloud = NDArray[np.float64]
"""(N, 2)."""

Particles = Annotated[int, Field(ge=1, le=100, description="particles whose paths are drawn")]
Points = Annotated[int, Field(ge=100, le=100_000, description="points in the cloud")]


@figure("dye", needs=("data", "points"))
def dye(
    target: Target,
    *,
    schedule: Annotated[
        Spec | None, Field(description="of the way out; the run's own, or linear, if not given")
    ] = None,
    count: Points = 4000,
    particles: Particles = 6,
    columns: Columns = 6,
    steps: Length = None,
    label: Label = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    frames: Frames = 48,
    fps: Fps = 12.0,
    seed: Seed = 0,
) -> list[Picture]:
    """A drop of dye as density with the paths of a few particles: forward, and back by a model."""
    corruption = forward.corruption_of(target, schedule)
    out, titles = stirred(target, corruption, count, frames, seed)
    made = _drawn("forward", out, titles, particles, columns, fps)
    made[0] = still("forward", made[0].image, *_said(corruption))
    if target.kind in ("run", "exact"):
        model = target.model
        sampling = walk_of(model, steps, guidance, sampler)
        walk = list(moments(model, asks(model, count, label), sampling, seed))
        back = [_cloud(each.x) for each in walk]
        words = [moment_words(model.denoiser.corruption.schedule, each.t) for each in walk]
        made += _drawn(
            "reverse", back, words, particles, columns, fps, f"Drawn with {said(sampling)}."
        )
    return made


def stirred(
    target: Target, corruption: Corruption, count: int, frames: int, seed: int
) -> tuple[list[Cloud], list[str]]:
    """A cloud at `frames` moments of the forward chain, clean to noise, and a title for each.

    The chain is walked step by step, so a point's places are one path of a diffusing particle.
    """
    data = target.splits.train
    index = forward.chosen(data, 0, count)
    x0 = forward.encoded(data, index, Symmetric())
    schedule = corruption.schedule
    times = forward.even_times(schedule, frames)[1:]
    clouds, titles = [_cloud(x0)], [moment_words(schedule, times.new_zeros(()))]
    for t, x in zip(times, forward.chain(x0, times, corruption, index, seed), strict=True):
        level = schedule.level(t)
        clouds.append(_cloud(forward.fitted(x, level)))
        titles.append(moment_words(schedule, t))
    return clouds, titles


def _said(corruption: Corruption) -> list[str]:
    notes = ["Each particle walks step by step; the paths are where it has been."]
    if forward.explodes(corruption.schedule):
        notes.append("The noise outgrows the cloud: points are shown divided by √(1 + σ²).")
    return notes


def _drawn(
    name: str,
    clouds: list[Cloud],
    titles: list[str],
    particles: int,
    columns: int,
    fps: float,
    *notes: str,
) -> list[Picture]:
    """A row of panels, and the film."""
    paths = np.stack([cloud[:particles] for cloud in clouds])
    shown = spread(len(clouds), columns)
    image = panels(
        [clouds[i] for i in shown],
        titles=[titles[i] for i in shown],
        paths=paths,
        times=[i / (len(clouds) - 1) for i in shown],
        columns=columns,
    )
    film = dye_frames(clouds, titles=titles, paths=paths)
    return [still(name, image, *notes), Picture(f"{name}-film", tuple(film), notes, fps)]


def _cloud(x: Tensor) -> Cloud:
    """(N, 2, 1, 1) as (N, 2)."""
    return np.asarray(x.reshape(-1, 2).double().numpy())
