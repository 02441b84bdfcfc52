"""The forward process: where to look along a schedule, and what is there.

Knows nothing of models. Noise is keyed by (seed, picture), so one picture keeps its noise from
column to column, and figures of the same seed show the same noise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from couette.config import STATES, RunConfig, Spec, spec
from couette.contracts import Codec, Corruption, Level, Schedule
from couette.data import Dataset, to_float
from couette.denoiser import build_corruption
from couette.errors import InputError
from couette.figures.target import Target
from couette.schedules import entries, mixed, ratio, transition
from couette.tensors import Stream, expand, normal, uniform

STANDARD = spec("linear")
"""What bare data are noised with: DDPM's table."""


def corruption_of(target: Target, schedule: Spec | None = None) -> Corruption:
    """The schedule asked for with normal noise; else the target's own; else the standard one.

    Raises:
        InputError: the target's own replaces states.
    """
    own = target.kind in ("run", "model", "exact", "recipe")
    if schedule is None and own:
        corruption = build_corruption(target.diffusion)
        if corruption.noise in STATES:
            raise InputError(
                f"{corruption.noise.capitalize()} noise replaces states, it adds nothing; show "
                "'states'."
            )
        return corruption
    diffusion = RunConfig().diffusion.model_copy(update={"schedule": schedule or STANDARD})
    return build_corruption(diffusion)


def chosen(data: Dataset, first: int, count: int) -> Tensor:
    """The indices of `count` samples from the one numbered `first`, (B,) int64.

    Raises:
        InputError: there is no such sample.
    """
    if not 0 <= first < len(data):
        raise InputError(
            f"There is no picture {first}; '{data.name}' has 0 to {len(data) - 1} to show."
        )
    return torch.arange(first, min(first + count, len(data)), dtype=torch.int64)


def encoded(data: Dataset, index: Tensor, codec: Codec) -> Tensor:
    """The samples at `index` as the corruption takes them, (B, C, H, W) float32."""
    return codec.encode(to_float(data.pictures(index)))


def noise_for(
    index: Tensor, like: Tensor, seed: int, kind: str = "normal", draw: int = 0
) -> Tensor:
    """Noise of the shape of `like` (B, ...), each row a function of (seed, index, draw)."""
    make = normal if kind == "normal" else uniform
    keys = torch.stack((index, torch.zeros_like(index)), 1)
    return make(seed, keys, Stream.SAMPLING + draw, like.shape[1:])


def noised(x0: Tensor, level: Level, eps: Tensor) -> Tensor:
    """alpha·x0 + sigma·eps; alpha and sigma 0-d, or (B,) for one level a row."""
    return mixed(x0, Level(expand(level.alpha, x0), expand(level.sigma, x0)), eps)


def columns_of(corruption: Corruption, count: int, at: Sequence[float] = ()) -> Tensor:
    """Where to look along a schedule, (N,) float64 times rising from clean to noise.

    Args:
        count: how many, from the cleanest to the noisiest: for a table its entries evenly, the
            first and last included; for a variance-exploding schedule evenly in the angle
            atan(sigma/alpha); else evenly in t.
        at: these instead: entries of a table counted from 0, times in [0, 1] where there is none.

    Raises:
        InputError: a place that the schedule does not have.
    """
    schedule = corruption.schedule
    size = entries(schedule)
    if at:
        top = 1 if size is None else size - 1
        outside = [place for place in at if not 0 <= place <= top]
        if outside:
            raise InputError(f"This schedule goes from t = 0 to {top}, not to {outside[0]:g}.")
        places = torch.tensor(at, dtype=torch.float64)
        return places if size is None else (places.floor() + 1) / size
    if size is not None:
        return (torch.linspace(0, size - 1, count, dtype=torch.float64).floor() + 1) / size
    if explodes(schedule):
        return even_times(schedule, count)
    return torch.linspace(0, 1, count, dtype=torch.float64)


def even_times(schedule: Schedule, count: int) -> Tensor:
    """Times even in the angle atan(sigma/alpha), from 0 to 1: as much happens in each stretch."""
    end = schedule.level(torch.ones((), dtype=torch.float64))
    angles = torch.linspace(0, 1, count, dtype=torch.float64) * torch.atan2(end.sigma, end.alpha)
    times = schedule.time(-2 * angles[1:-1].tan().log())
    return torch.cat((torch.zeros(1, dtype=torch.float64), times, torch.ones(1).double()))


def explodes(schedule: Schedule) -> bool:
    """Whether the picture keeps its size while the noise grows past it."""
    return float(schedule.level(torch.ones((), dtype=torch.float64)).alpha) == 1


def words(schedule: Schedule, t: Tensor) -> str:
    """A time in a title: the table's entry and ᾱ, or t and what there is of picture and noise."""
    level, size = schedule.level(t), entries(schedule)
    if size is not None and t > 0:
        return f"t = {round(float(t) * size) - 1}\nᾱ = {_short(float(level.alpha) ** 2)}"
    if explodes(schedule):
        return f"t = {_short(float(t))}\nσ = {_short(float(ratio(level)))}"
    return f"t = {_short(float(t))}\nα = {_short(float(level.alpha))}"


def fitted(x: Tensor, level: Level) -> Tensor:
    """x_t as it can be looked at: divided by sqrt(alpha² + sigma²) where that is above 1."""
    scale = torch.hypot(level.alpha, level.sigma).clamp(min=1)
    return x / expand(scale, x)


def chain(
    x0: Tensor, times: Tensor, corruption: Corruption, index: Tensor, seed: int
) -> Iterator[Tensor]:
    """x_t at each of the times, step by step: q(x_t | x_s) from one to the next, fresh noise each.

    Args:
        x0: (B, C, H, W).
        times: rising; the first is reached from x0.
        index: (B,) int64, keys of the noise.

    Raises:
        InputError: noise that is not normal; a chain of uniform noises is not uniform.
    """
    if corruption.noise != "normal":
        raise InputError(
            "A chain of uniform noises is not uniform; the toy mix has only its closed form."
        )
    schedule = corruption.schedule
    before = schedule.level(torch.zeros((), dtype=torch.float64))
    x = x0
    for number, t in enumerate(times):
        here = schedule.level(t)
        eps = noise_for(index, x, seed, draw=1 + number)
        x = noised(x, transition(before, here), eps)
        before = here
        yield x


def _short(value: float) -> str:
    return f"{value:.2g}" if abs(value) < 1e-3 else f"{value:.3g}"
