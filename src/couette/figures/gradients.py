"""What a classifier sees in noisy pictures, and what comes of climbing its probability."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from couette.config import SamplingConfig, Spec
from couette.contracts import Ask, Level
from couette.data import to_float
from couette.errors import InputError
from couette.figures.asked import looked_at
from couette.figures.registry import Label, Length, Picture, Rows, Sampler, Seed, figure, still
from couette.figures.reverse import matching
from couette.figures.target import Target
from couette.generate import ask, said, sampling_of
from couette.generate import steps as drawn
from couette.guidance import Classify, gradient
from couette.model import Model
from couette.opening import classifier_for
from couette.render import grid, spread
from couette.schedules import mixed
from couette.tensors import Stream, expand, normal

NOISE = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0)
"""The levels shown, sigma/alpha."""

COLUMNS = 7
CLIMBS = 60
STEP = 0.03
"""Pixels' root mean square of one climb, in pictures of [−1, 1]."""

Strength = Annotated[float, Field(ge=-1000, le=1000, description="guidance scale")]


class Walk(NamedTuple):
    """Pictures on the way, (B, C, H, W) each, and p(y | x) of the class asked for, (B,) each."""

    pictures: list[Tensor]
    chances: list[Tensor]


@figure("gradients", needs=("model", "data", "pictures", "chain"))
def gradients(
    target: Target,
    *,
    classifier: Annotated[
        str | None, Field(description="a run of the recipe `classifier`, on the same data")
    ] = None,
    rows: Rows = 3,
    steps: Length = None,
    label: Label = None,
    guidance: Strength = 3.0,
    sampler: Sampler = None,
    seed: Seed = 0,
) -> list[Picture]:
    """p(y | x) and its gradient by pixel; pixels that climb it, beside guided sampling."""
    if classifier is None:
        raise InputError(
            "'gradients' reads a classifier of noised pictures; train one with couette train "
            f"{target.config.data.source} --recipe classifier, and give its run as --classifier."
        )
    if not target.unseen.classes:
        raise InputError(f"The data of {target.described} have no labels; 'gradients' needs some.")
    model = target.model
    classify = classifier_for(model, classifier)
    guider = Spec(name="classifier", run=classifier)
    sampling = sampling_of(model, guidance=guidance, guider=(guider,), steps=steps, sampler=sampler)
    asked = ask(model, rows, "each" if label is None else label, sampling)
    climbed = climb(model, classify, asked, seed)
    guided = guided_walk(model, classify, asked, sampling, seed)
    return [
        still(
            "gradients",
            slopes(target, classify, asked, seed),
            "Below each noised picture: what would raise the probability of its own class, red "
            "where brighter and blue where darker, each scaled to its largest value.",
        ),
        still(
            "ascent",
            _beside(climbed, guided, [target.unseen.classes[i] for i in _labels(asked).tolist()]),
            f"Above: noise moved {CLIMBS} times along the gradient of log p(y | x), read as nearly "
            "clean: the classifier becomes sure, and nothing appears.",
            f"Below: the same classifier guides {said(sampling)}. Under each picture: p(y | x).",
        ),
    ]


def slopes(target: Target, classify: Classify, asked: list[Ask], seed: int) -> Image:
    """Pictures of the classes asked for at rising noise, each above the gradient for its class."""
    model, data = target.model, target.unseen
    index, label = matching(data, asked), _labels(asked)
    device = model.denoiser.runtime.device
    clean = model.codec.encode(to_float(data.pictures(index))).to(device)
    eps = normal(seed, torch.stack((index, index), 1), Stream.SAMPLING, clean.shape[1:]).to(device)
    schedule = model.denoiser.corruption.schedule
    cells: list[Tensor] = []
    words: list[list[str]] = []
    for noise in NOISE:
        t = schedule.time(-2 * torch.tensor(noise, dtype=torch.float64).log())
        level = schedule.level(t)
        x = mixed(clean, Level(*(expand(part, clean) for part in level)), eps)
        chance = chances(classify, x, t, label)
        slope = signed(gradient(classify, x, t, label.to(device)).cpu())
        shown = looked_at(model, x, t)
        pairs = torch.stack((shown.expand_as(slope), slope), 1).flatten(0, 1)
        cells.append(pairs)
        words.append([each for p in chance for each in (f"p = {p:.2f}", "")])
    names = [data.classes[each] for each in label.tolist()]
    return grid(
        torch.stack(cells, 1).flatten(0, 1),
        columns=len(NOISE),
        labels=[each for row in zip(*words, strict=True) for each in row],
        column_titles=[f"σ/α = {noise:g}" for noise in NOISE],
        row_titles=[each for name in names for each in (name, "∂ log p")],
    )


def signed(values: Tensor) -> Tensor:
    """Values (B, C, H, W) as colours, (B, 3, H, W): red above 0, blue below, white at 0.

    The mean over channels is shown, each picture scaled to its own largest.
    """
    mean = values.mean(1, keepdim=True)
    mean = mean / mean.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(mean.dtype).tiny)
    above, below = mean.clamp(min=0), (-mean).clamp(min=0)
    return 1 - 2 * torch.cat((below, above + below, above), 1)


@torch.no_grad()
def chances(classify: Classify, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
    """p(label | x_t), (B,), on the CPU."""
    return classify(x, t).exp().cpu().gather(1, label[:, None])[:, 0]


def climb(model: Model, classify: Classify, asked: list[Ask], seed: int) -> Walk:
    """Plain pixel ascent: noise moved along the gradient of log p(y | x), and nothing else.

    The classifier reads the pictures as nearly clean, at the least noise shown.
    """
    schedule = model.denoiser.corruption.schedule
    t = schedule.time(-2 * torch.tensor(NOISE[0], dtype=torch.float64).log())
    label = _labels(asked)
    index = torch.arange(len(asked))
    keys = torch.stack((index, torch.zeros_like(index)), 1)
    noise = normal(seed, keys, Stream.SAMPLING, (model.shape)) / 2
    x = model.codec.encode(noise).to(model.denoiser.runtime.device)
    walk = Walk([looked_at(model, x)], [chances(classify, x, t, label)])
    for _ in range(CLIMBS):
        slope = gradient(classify, x, t, label.to(x.device))
        size = slope.square().mean((1, 2, 3), keepdim=True).sqrt()
        x = x + STEP * slope / size.clamp(min=torch.finfo(size.dtype).tiny)
        walk.pictures.append(looked_at(model, x))
        walk.chances.append(chances(classify, x, t, label))
    return walk


def guided_walk(
    model: Model, classify: Classify, asked: list[Ask], sampling: SamplingConfig, seed: int
) -> Walk:
    """The predictions of guided sampling, and what the classifier says of each noisy step."""
    label = _labels(asked)
    walk = Walk([], [])
    for step in drawn(model, asked, seed=seed, sampling=sampling):
        walk.pictures.append(looked_at(model, step.x0))
        walk.chances.append(chances(classify, step.x, step.t, label))
    walk.pictures[-1] = looked_at(model, step.x)
    return walk


def _labels(asked: list[Ask]) -> Tensor:
    """The classes asked for, (B,) int64."""
    return torch.tensor([each.label for each in asked])


def _beside(climbed: Walk, guided: Walk, classes: list[str]) -> Image:
    """Each picture's ascent above its guided sampling, from left to right."""
    rows, words = [], []
    for i in range(len(classes)):
        for walk in (climbed, guided):
            moments = spread(len(walk.pictures), COLUMNS)
            rows += [walk.pictures[k][i] for k in moments]
            words += [f"p = {walk.chances[k][i]:.2f}" for k in moments]
            padding = COLUMNS - len(moments)
            rows += [torch.ones_like(rows[-1])] * padding
            words += [""] * padding
    names = [name for each in classes for name in (f"ascent to {each}", "guided sampling")]
    return grid(torch.stack(rows), columns=COLUMNS, labels=words, row_titles=names)
