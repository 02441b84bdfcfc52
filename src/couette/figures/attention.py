"""Where a model looks when it reads: the maps of attention from the picture to each word."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from couette.conditioners import Words
from couette.config import SamplingConfig
from couette.contracts import Ask
from couette.errors import InputError
from couette.figures.asked import walk_of
from couette.figures.registry import Guidance, Length, Picture, Sampler, Seed, figure, still
from couette.figures.target import Target
from couette.generate import finished, said, steps
from couette.model import Model
from couette.networks.text import tapped
from couette.render import grid
from couette.runtime import evaluating

_DIM = 0.25
"""How much of a picture is seen where a word is not attended to."""


@figure("attention", needs=("model", "pictures", "chain"))
def attention(
    target: Target,
    *,
    prompt: Annotated[tuple[str, ...], Field(description="words, one drawing for each")] = (),
    steps: Length = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    seed: Seed = 0,
) -> list[Picture]:
    """Which part of a picture attends to which word, as the picture is drawn.

    The mean over steps, heads and levels, as in Hertz et al. 2023 (fig. 4); each word's map is
    brightened until its highest value is 1.

    Raises:
        InputError: a model that reads no words, or no prompt.
    """
    model = target.model
    if model.conditioner.words is None:
        raise InputError(
            f"'attention' needs a model that reads words; {target.described} was trained without "
            "captions."
        )
    if not any(each.strip() for each in prompt):
        raise InputError("'attention' needs words to look at; give --prompt \"…\".")
    sampling = walk_of(model, steps, guidance, sampler)
    drawn = []
    for number, text in enumerate(prompt, start=1):
        picture, maps = looked(model, text, sampling, seed)
        image = grid(
            torch.cat((picture[None], shaded(picture, torch.stack(list(maps.values()))))),
            columns=len(maps) + 1,
            labels=["", *(word for word, _ in maps)],
            title=text,
        )
        name = "attention" if len(prompt) == 1 else str(number)
        drawn.append(still(name, image, f"Drawn with {said(sampling)}."))
    return drawn


Maps = dict[tuple[str, int], Tensor]
"""A map (H, W) in [0, 1] for each word of a prompt, by the word and its place."""


def looked(model: Model, prompt: str, sampling: SamplingConfig, seed: int) -> tuple[Tensor, Maps]:
    """A picture (C, H, W) drawn for a prompt, and where it attended to each of its words.

    Raises:
        InputError: a network that can't be looked into, or a single step.
    """
    words = model.conditioner.words
    if not isinstance(words, Words):
        raise InputError(
            "'attention' looks into networks that were trained here; this one is of another "
            "library, and can't be looked into."
        )
    device = model.denoiser.runtime.device
    cond = {key: value.to(device) for key, value in model.conditioner([Ask(words=prompt)]).items()}
    seen: list[Tensor] = []

    def look(where: str, weights: Tensor) -> Tensor:
        side = round(weights.shape[2] ** 0.5 * (shape[1] / shape[2]) ** 0.5)
        rows = weights.float().mean(1).transpose(1, 2).reshape(1, weights.shape[3], side, -1)
        seen.append(F.interpolate(rows, shape[1:], mode="bilinear").cpu()[0])
        return weights

    shape = model.shape
    x: Tensor | None = None
    with torch.no_grad(), evaluating(model.network):
        for step in steps(model, [Ask(words=prompt)], seed=seed, sampling=sampling):
            x = step.x
            if step.count is None or step.index < step.count - 1:
                with tapped(model.network, look):
                    model.denoiser(step.x, step.t, cond)
    assert x is not None
    if not seen:
        raise InputError("A single step attends to nothing afterwards; draw in two or more.")
    mean = torch.stack(seen).mean(0)  # (L, h, w)
    maps: Maps = {}
    for number, (word, places) in enumerate(words.tokenizer.words(prompt)):
        kept = [place for place in places if place < len(mean) - 1]
        if kept:
            found = mean[kept].sum(0)
            maps[word, number] = (found - found.min()) / (found.max() - found.min()).clamp_min(1e-9)
    picture = finished(model, x)[0]
    size = picture.shape[-2:]
    return picture, {
        key: F.interpolate(each[None, None], size, mode="nearest")[0, 0]
        for key, each in maps.items()
    }


def shaded(picture: Tensor, maps: Tensor) -> Tensor:
    """The picture (C, H, W), dark where a map (N, H, W) is 0: (N, C, H, W)."""
    light = _DIM + (1 - _DIM) * maps[:, None]
    return (picture + 1) * light - 1
