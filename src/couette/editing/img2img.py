"""Image to image: noise a picture part of the way and denoise it from there (Meng et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from torch import Tensor

from couette.contracts import Step
from couette.editing.registry import EDITS, Edit, Scene, Share
from couette.errors import InputError
from couette.generate import Drive, Walk


def from_picture(z: Tensor, left: int) -> Drive:
    """SDEdit: the last `left` steps of the walk, from z at the noise level where they begin.

    All of them are sampling from noise alone; none leaves z as it is.

    Args:
        z: (1 or B, C, H, W) in the codec's space.
        left: steps to take, from 0 to the walk's own.
    """

    def drive(walk: Walk) -> Iterator[Step]:
        times = walk.times[len(walk.times) - 1 - left :]
        if not left:
            x = z.expand_as(walk.x)
            return iter((Step(0, 1, times[-1], x, x),))
        start = walk.x if left == len(walk.times) - 1 else walk.noised(z, times[0])
        return walk.down(start, times)

    return drive


@EDITS.register("img2img", pictures=1)
def img2img(
    scene: Scene,
    *,
    strength: Annotated[
        tuple[Share, ...],
        Field(description="share of the steps that are taken again; 0 keeps the picture"),
    ] = (),
    start: Annotated[
        tuple[Annotated[int, Field(ge=0)], ...],
        Field(description="or the step of the grid to begin at; 0 is pure noise"),
    ] = (),
) -> list[Edit]:
    """A picture made anew: noised to some step of the grid, then denoised from there (SDEdit).

    Meng et al. 2022, alg. 1. Little noise keeps the picture's shapes and mends its texture; much
    keeps its layout alone. Several strengths or starts make a row each. When to use it: for
    sketches, and for variations on a picture.

    Raises:
        InputError: both strengths and starts, or a start beyond the grid.
    """
    steps = scene.sampling.steps
    if strength and start:
        raise InputError("A start and a strength say the same; give one of them.")
    if far := [each for each in start if each > steps]:
        raise InputError(f"The grid has {steps} steps, so there is no start {far[0]} on it.")
    lefts = [steps - each for each in start] or [round(s * steps) for s in strength or (0.6,)]
    words = [f"start {each}" for each in start] or [f"strength {s:g}" for s in strength or (0.6,)]
    z = scene.encoded(scene.picture)
    return [
        Edit(
            scene.asks(),
            name=name,
            drive=from_picture(z, left),
            before={"original": scene.picture},
        )
        for name, left in zip(words, lefts, strict=True)
    ]
