"""Pictures drawn: the parts in their order, and where each picture's noise comes from."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from couette.conditioners import NO_WORDS
from couette.config import STATES, SamplingConfig, Spec
from couette.contracts import Ask, Cond, Corruption, Denoise, Noise, Prediction, Sampler, Step
from couette.denoiser import Reusing, recalling, regular, singular
from couette.discrete import KINDS
from couette.errors import InputError, NotFinite
from couette.generate.asking import labels_of
from couette.generate.settings import times_of, together
from couette.guidance import GUIDANCE, THRESHOLDS, Parted, Terms, guide
from couette.model import Model, pixel_range
from couette.opening import classifier_for, guide_for
from couette.samplers import SAMPLERS
from couette.tensors import Stream, expand, normal, sent, uniform

Editor = Callable[[Denoise], Denoise]
"""Wraps the guided denoiser. Called once a run, so that what it returns may remember."""

Threshold = Callable[[Tensor], Tensor]

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
        self.keys = sent(torch.stack((indices, torch.zeros_like(indices)), 1), device)
        self.draws = 0

    def __call__(self, t: Tensor, u: Tensor) -> Tensor:
        draw = normal if self.kind == "normal" else uniform
        self.draws += 1
        noise = draw(self.seed, self.keys, Stream.SAMPLING + self.draws - 1, self.shape)
        return noise.contiguous(memory_format=torch.channels_last)


class _Final:
    """The end of the chain: no gradients, the prediction kept in its range, and finite.

    On the processor a prediction is looked at as it comes; elsewhere that would wait for the
    device at every step, so there all are looked at once, at the end.
    """

    def __init__(self, denoise: Denoise, threshold: Threshold) -> None:
        self.denoise, self.threshold = denoise, threshold
        self._finite: list[tuple[Tensor, Tensor]] = []

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    @torch.no_grad()
    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        p = self.denoise(x, t, cond)
        self._finite.append((t, p.x0.isfinite().all()))
        if x.device.type == "cpu":
            self.check()
        return p._replace(x0=self.threshold(p.x0))

    def check(self) -> None:
        """Look at what was predicted since it was last looked at.

        Raises:
            NotFinite: with the time of the first prediction that is not.
        """
        for t, finite in self._finite:
            if not bool(finite):
                raise NotFinite(
                    f"What the model predicts at t = {float(t):.4g} is not finite, so nothing can "
                    "be drawn from there. Use another checkpoint, or draw in float32; a model "
                    "that does so everywhere was trained with too high a learning rate."
                )
        self._finite.clear()

    def watched(self, run: Iterator[Step]) -> Iterator[Step]:
        """A run that is looked at when it ends."""
        yield from run
        self.check()


class Walk(NamedTuple):
    """One run of a sampler, ready to begin: what an editor that drives it is given.

    denoise: the end of the chain, without gradients. flowing: the chain before its threshold,
        through which gradients flow.
    x: where the sampler would start, (B, C, H, W) at times[0].
    unit: the draw that x was made of, of unit variance.
    times: (N + 1,) float64, falling.
    indices: (B,) int64, which pictures of the seed these are.
    """

    sampler: Sampler
    denoise: Denoise
    flowing: Denoise
    x: Tensor
    unit: Tensor
    times: Tensor
    cond: Cond
    noise: Noise
    indices: Tensor

    def down(self, x: Tensor, times: Tensor | None = None) -> Iterator[Step]:
        """The sampler's own steps from x at the first of the times, or of those of the run."""
        times = self.times if times is None else times
        return self.sampler(self.denoise, x, times, self.cond, self.noise)

    def noised(self, x0: Tensor, t: Tensor) -> Tensor:
        """x0 (1 or B, C, H, W) with the run's first draw of noise, at the time t."""
        level = self.denoise.corruption.schedule.level(t)
        return expand(level.alpha, self.unit) * x0 + expand(level.sigma, self.unit) * self.unit


Drive = Callable[[Walk], Iterator[Step]]
"""Takes the sampler's place: a generator of Steps."""


def steps(
    model: Model,
    asked: Sequence[Ask],
    *,
    seed: int = 0,
    first: int = 0,
    sampling: SamplingConfig | None = None,
    editor: Editor | None = None,
    drive: Drive | None = None,
    shape: tuple[int, int, int] | None = None,
) -> Iterator[Step]:
    """Draw one batch, step by step, in the codec's space.

    Args:
        model: the model.
        asked: what each picture is to show.
        seed: with each picture's index it fixes all noise.
        first: the index of the first picture; picture i of a seed is the same in any batch.
        sampling: sampler, grid, steps, guidance, threshold; the model's own when not given.
        editor: wraps the guided denoiser.
        drive: takes the sampler's place.
        shape: (C, H, W) to draw in the codec's space; the model's own when not given.

    Raises:
        InputError: settings that the model can't take; before the first step.
    """
    sampling = sampling or model.config.sampling
    if not asked:
        raise InputError(_NOTHING)
    sampler = SAMPLERS.bind(sampling.sampler)
    device = model.denoiser.runtime.device
    cond = told(model, asked, sampling)
    denoise = guided(model, sampling, len(asked))
    denoise = editor(denoise) if editor else denoise
    denoise = recalling(denoise, model.denoiser.network)
    threshold = _threshold(model, sampling.threshold)
    times = times_of(model, sampling)
    _refuse_other_kind(model, sampling)
    _refuse_singular(model, sampling, times[0])
    indices = torch.arange(first, first + len(asked), dtype=torch.int64)
    corruption = model.denoiser.corruption
    noise = KeyedNoise(seed, indices, shape or model.shape, device, corruption.noise)
    unit = noise(times[0], times[0])
    start = _start(corruption, times[0], unit)
    final = _Final(denoise, threshold)
    walk = Walk(sampler, final, denoise, start, unit, times, cond, noise, indices)
    return final.watched(drive(walk) if drive else walk.down(start))


def told(
    model: Model, asked: Sequence[Ask], sampling: SamplingConfig | None = None
) -> dict[str, Tensor]:
    """What the network is told of what is asked, a row for each, on its device.

    Raises:
        InputError: what the model, and the classifier that guides it, can't be asked.
    """
    labels = labels_of(model, sampling or model.config.sampling)
    found = labels(asked)
    if labels is not model.conditioner:
        found |= model.conditioner([each._replace(label=None) for each in asked])
    return _read(model, found)


def _read(model: Model, told: Cond) -> dict[str, Tensor]:
    """What is told, on the model's device, its words read once for all evaluations."""
    denoiser = model.denoiser
    return denoiser.read({key: sent(rows, denoiser.runtime.device) for key, rows in told.items()})


def guided(model: Model, sampling: SamplingConfig, count: int) -> Denoise:
    """The model's denoiser under the guidance that is asked for, for one run of `count` pictures.

    Raises:
        InputError: guidance that the model can't be given.
    """
    if sampling.negative and model.conditioner.words is None:
        raise InputError(NO_WORDS)
    if sampling.negative and sampling.guidance == 1:
        raise InputError(
            f"The negative prompt '{sampling.negative}' changes nothing at guidance 1, which leads "
            "away from nothing; give a guidance of 2 or more, or leave it out."
        )
    untold = model.conditioner([Ask(words=sampling.negative or None)] * count)
    learned = model.config.diffusion.drop > 0 or not untold
    terms = Terms(
        sampling.guidance,
        _read(model, untold) if learned else None,
        partial(guide_for, model),
        partial(classifier_for, model),
    )
    for each in sampling.guider:
        key = GUIDANCE.trait(each.name, "tells")
        if key and key not in model.denoiser.network.wants:
            raise InputError(
                f"The guider '{each.name}' needs a network with self-attention, and "
                f"'{model.config.network}' has none; use another guider, such as auto."
            )
    denoise: Denoise = model.denoiser
    if sampling.reuse > 1:
        denoise = Reusing(denoise, model.denoiser.network, sampling.reuse)
    if sampling.passes == "apart":
        denoise = Parted(denoise, count)
    return guide(denoise, terms, sampling.guider)


def _threshold(model: Model, part: Spec) -> Threshold:
    """What keeps predictions in the range of what the model makes.

    Raises:
        InputError: points and latents have no range.
    """
    limits = None if model.is_points else pixel_range(model.codec)
    keep = THRESHOLDS.bind(part)
    if part.name != "none" and limits is None:
        what = "points" if model.is_points else "latents"
        raise InputError(
            f"The threshold '{part.name}' reads the range of pixels, and {what} have none; use "
            "the threshold 'none'."
        )
    low, high = limits or (0.0, 0.0)
    return lambda x0: keep(x0, low, high)


def _refuse_singular(model: Model, sampling: SamplingConfig, t: Tensor) -> None:
    """Refuse a start where the network's output says nothing of x0: eps and score at alpha = 0."""
    level = model.denoiser.corruption.schedule.level(t)
    if singular(model.denoiser.parameterization(level)):
        raise InputError(
            f"The grid '{sampling.grid}' starts at pure noise, where a model that predicts "
            f"'{model.config.diffusion.parameterization}' can't say what the picture is; use the "
            f"grid 'karras', or a model that predicts one of {', '.join(regular(level))}."
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
    if noise in STATES and sampling.threshold.name != "none":
        raise InputError("States are never out of range; leave out --threshold.")


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
    first: int = 0,
    batch: int = 64,
    sampling: SamplingConfig | None = None,
    editor: Editor | None = None,
    drive: Drive | None = None,
    shape: tuple[int, int, int] | None = None,
) -> Iterator[Tensor]:
    """Draw pictures batch by batch; arguments as of `steps`.

    Yields:
        (B, C, H, W) float32 in [-1, 1] on the CPU (points: unclamped).

    Raises:
        InputError: as `steps`, or a batch below 1.
    """
    if batch < 1:
        raise InputError(f"A batch holds at least one picture, not {batch}.")
    if not asked:
        raise InputError(_NOTHING)
    batch = together(sampling or model.config.sampling, batch)
    way = partial(
        steps, model, seed=seed, sampling=sampling, editor=editor, drive=drive, shape=shape
    )
    for start in range(0, len(asked), batch):
        part = asked[start : start + batch]
        run = way(part, first=first + start)
        # Only the last step is kept: a thousand of them would fill the memory.
        yield finished(model, deque(run, maxlen=1).pop().x)


def finished(model: Model, x: Tensor) -> Tensor:
    """What a sampler ended with, as pictures on the CPU."""
    with torch.no_grad():
        decoded = model.codec.decode(x).float().cpu()
    return decoded if model.is_points else decoded.clamp(-1, 1)
