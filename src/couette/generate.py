"""From what is asked to pictures: the one place that fixes the order of the parts,
network → guidance → editor → threshold, and where each picture's noise comes from.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from couette.config import STATES, SamplingConfig, Spec, parse, spec
from couette.contracts import Ask, Cond, Corruption, Denoise, Prediction, Step
from couette.discrete import KINDS
from couette.errors import InputError
from couette.guidance import classifier_free
from couette.model import Model, pixel_range
from couette.registry import GRIDS
from couette.samplers import SAMPLERS
from couette.tensors import Stream, normal, uniform

Editor = Callable[[Denoise], Denoise]

_NOTHING = "Nothing was asked for; the count of pictures is at least 1."


class KeyedNoise:
    """Noise for one run of a sampler: each draw a function of (seed, picture index, draw).

    So a picture's noise does not depend on the batch it is made in. One object serves one run.

    Args:
        seed: the seed of all pictures.
        indices: (B,) int64, the pictures' indices.
        shape: (C, H, W).
        device: where the noise is wanted.
        kind: normal, or uniform on [0, 1).
    """

    def __init__(
        self, seed: int, indices: Tensor, shape: Sequence[int], device: str, kind: str = "normal"
    ) -> None:
        self.seed, self.shape, self.kind = seed, tuple(shape), kind
        self.keys = torch.stack((indices, torch.zeros_like(indices)), 1).to(device)
        self.draws = 0

    def __call__(self, t: Tensor, u: Tensor) -> Tensor:
        draw = normal if self.kind == "normal" else uniform
        self.draws += 1
        noise = draw(self.seed, self.keys, Stream.SAMPLING + self.draws - 1, self.shape)
        return noise.contiguous(memory_format=torch.channels_last)


class _Final:
    """The end of the chain: no gradients, and the prediction clamped where asked."""

    def __init__(self, denoise: Denoise, limits: tuple[float, float] | None) -> None:
        self.denoise, self.limits = denoise, limits

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        p = self.denoise(x, t, cond)
        return p if self.limits is None else p._replace(x0=p.x0.clamp(*self.limits))


def ask(
    model: Model, count: int, label: int | str | Sequence[int | str] | None = None
) -> list[Ask]:
    """What each of `count` pictures is asked to show.

    Args:
        model: the model, which knows its classes.
        count: how many pictures.
        label: a class by name or number for all, "each" for every class in turn, one per
            picture, or None for anything.

    Raises:
        InputError: no pictures, an unknown label, or not one label per picture.
    """
    if count < 1:
        raise InputError(f"The count of pictures is at least 1, not {count}.")
    find = model.conditioner.find
    if label is None:
        return [Ask()] * count
    if label == "each" and model.conditioner.classes:
        return in_turn(model, count)
    if isinstance(label, (int, str)):
        return [Ask(label=find(str(label)))] * count
    if len(label) != count:
        raise InputError(f"{len(label)} labels were given for {count} pictures; give one each.")
    return [Ask(label=find(str(each))) for each in label]


def in_turn(model: Model, count: int) -> list[Ask]:
    """Every class in turn; nothing in particular for a model without classes."""
    classes = len(model.conditioner.classes)
    return [Ask(label=i % classes if classes else None) for i in range(count)]


def sampling_of(model: Model, **settings: Any) -> SamplingConfig:
    """The model's own sampling with some settings replaced; None leaves one as it is.

    Sampler and grid come back with all their settings, converted.

    Raises:
        ConfigError, UnknownName: a setting, sampler or grid that does not exist.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    fields = {**model.config.sampling.model_dump(), **given}
    sampling = parse(SamplingConfig, fields, "the sampling settings")
    sampler, grid = sampling.sampler, sampling.grid
    return sampling.model_copy(
        update={
            "sampler": Spec(name=sampler.name, **SAMPLERS.check(sampler)),
            "grid": Spec(name=grid.name, **GRIDS.check(grid)),
        }
    )


def shortened(sampling: SamplingConfig, steps: int) -> SamplingConfig:
    """The same sampling in at most `steps` steps; fewer of DDPM's chain are drawn with DDIM."""
    if steps >= sampling.steps:
        return sampling
    sampler = spec("ddim") if sampling.sampler.name == "ddpm" else sampling.sampler
    return sampling.model_copy(update={"steps": steps, "sampler": sampler})


def times_of(model: Model, sampling: SamplingConfig) -> Tensor:
    """The grid of times the settings ask for, (N + 1,) float64."""
    times: Tensor = GRIDS.bind(sampling.grid)(
        model.denoiser.corruption.schedule, steps=sampling.steps
    )
    return times


def steps(
    model: Model,
    asked: Sequence[Ask],
    *,
    seed: int = 0,
    first: int = 0,
    sampling: SamplingConfig | None = None,
    editor: Editor | None = None,
) -> Iterator[Step]:
    """Draw one batch, step by step, in the codec's space.

    Args:
        model: the model.
        asked: what each picture is to show.
        seed: with each picture's index it fixes all noise.
        first: the index of the first picture; picture i of a seed is the same in any batch.
        sampling: sampler, grid, steps, guidance, clip; the model's own when not given.
        editor: wraps the guided denoiser.

    Raises:
        InputError: settings that the model can't take; before the first step.
    """
    sampling = sampling or model.config.sampling
    if not asked:
        raise InputError(_NOTHING)
    sampler = SAMPLERS.bind(sampling.sampler)
    device = model.denoiser.runtime.device
    cond = {key: value.to(device) for key, value in model.conditioner(asked).items()}
    nothing = model.conditioner([Ask()] * len(asked))
    unconditional = {key: value.to(device) for key, value in nothing.items()}
    denoise: Denoise = classifier_free(model.denoiser, sampling.guidance, unconditional)
    denoise = editor(denoise) if editor else denoise
    limits = pixel_range(model.codec) if sampling.clip and not model.is_points else None
    times = times_of(model, sampling)
    _refuse_other_kind(model, sampling)
    _refuse_singular(model, sampling, times[0])
    indices = torch.arange(first, first + len(asked), dtype=torch.int64)
    corruption = model.denoiser.corruption
    noise = KeyedNoise(seed, indices, model.shape, device, corruption.noise)
    start = _start(corruption, times[0], noise(times[0], times[0]))
    run: Iterator[Step] = sampler(_Final(denoise, limits), start, times, cond, noise)
    return run


def _refuse_singular(model: Model, sampling: SamplingConfig, t: Tensor) -> None:
    """Refuse a start where the network's output says nothing of x0: eps at alpha = 0."""
    denoiser = model.denoiser
    scalings = denoiser.parameterization(denoiser.corruption.schedule.level(t))
    if not all(bool(part.isfinite()) for part in scalings):
        raise InputError(
            f"The grid '{sampling.grid}' starts at pure noise, where a model that predicts "
            f"'{model.config.diffusion.parameterization}' can't say what the picture is; use the "
            "grid 'karras'."
        )


def _refuse_other_kind(model: Model, sampling: SamplingConfig) -> None:
    """Refuse to draw states with a sampler of pictures, pictures with one of states, and to
    clamp the logits of states."""
    noise = model.denoiser.corruption.noise
    name = sampling.sampler.name
    if (noise in STATES) != SAMPLERS.trait(name, "states", False):
        other = "'categorical'" if noise in STATES else "'heun' or 'ddim'"
        raise InputError(
            f"The sampler '{name}' does not go with {noise} noise, which this model was trained "
            f"on; use {other}."
        )
    if noise in STATES and sampling.clip:
        raise InputError("States are never out of range; leave out --clip.")


def _start(corruption: Corruption, t: Tensor, noise: Tensor) -> Tensor:
    """What sampling starts from. Where some picture should be left, as at the end of a short
    table, noise of the same power stands in for it: x_T ~ N(0, 1) in DDPM."""
    if corruption.noise in STATES:
        return KINDS[corruption.noise].start(noise)
    level = corruption.schedule.level(t)
    power = torch.hypot(level.alpha, level.sigma) if corruption.noise == "normal" else level.sigma
    return noise * power


def pictures(
    model: Model,
    asked: Sequence[Ask],
    *,
    seed: int = 0,
    batch: int = 64,
    sampling: SamplingConfig | None = None,
    editor: Editor | None = None,
) -> Iterator[Tensor]:
    """Draw pictures batch by batch.

    Yields:
        (B, C, H, W) float32 in [-1, 1] on the CPU (points: unclamped).

    Raises:
        InputError: as `steps`, or a batch below 1.
    """
    if batch < 1:
        raise InputError(f"A batch holds at least one picture, not {batch}.")
    if not asked:
        raise InputError(_NOTHING)
    for first in range(0, len(asked), batch):
        part = asked[first : first + batch]
        run = steps(model, part, seed=seed, first=first, sampling=sampling, editor=editor)
        # Only the last step is kept: a thousand of them would fill the memory.
        yield finished(model, deque(run, maxlen=1).pop().x)


def finished(model: Model, x: Tensor) -> Tensor:
    """What a sampler ended with, as pictures on the CPU."""
    with torch.no_grad():
        decoded = model.codec.decode(x).float().cpu()
    return decoded if model.is_points else decoded.clamp(-1, 1)
