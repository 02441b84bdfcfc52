"""Inpainting: part of a picture made anew, the rest kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Cond, Corruption, Denoise, Level, Prediction, Step
from couette.editing import masks
from couette.editing.registry import EDITS, Edit, Scene
from couette.errors import InputError
from couette.generate import Drive, Walk
from couette.samplers.moves import need_normal
from couette.tensors import sent

Method = Annotated[
    Literal["repaint", "replace"],
    Field(description="repaint walks back and forth; replace walks once"),
]
Jump = Annotated[int, Field(ge=1, description="repaint: steps from one jump back to the next")]
Resample = Annotated[int, Field(ge=1, description="repaint: times each stretch is walked")]
Pixels = Annotated[int, Field(ge=0)]


class Masked:
    """What is known in place of what is predicted for it: a denoiser.

    x0 = known + mask·(x0 − known). Where the mask is 0 the moves of any sampler then carry x along
    alpha·known + sigma·eps, which is what replacing it at each step by a noised copy does.

    Args:
        denoise: the denoiser.
        known: (1, C, H, W) in the codec's space.
        mask: (1, 1, H, W) in [0, 1]: 1 is new.
    """

    def __init__(self, denoise: Denoise, known: Tensor, mask: Tensor) -> None:
        self.denoise, self.known, self.mask = denoise, known, mask

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        p = self.denoise(x, t, cond)
        base = None if p.base is None else self.held(p.base)
        return p._replace(x0=self.held(p.x0), base=base)

    def held(self, x0: Tensor) -> Tensor:
        return torch.where(self.mask == 0, self.known, self.known + self.mask * (x0 - self.known))


def replaced(known: Tensor, mask: Tensor) -> Drive:
    """The sampler's own walk, begun where the known part is noised, not noise alone."""

    def drive(walk: Walk) -> Iterator[Step]:
        return walk.down(_begun(walk, known, mask))

    return drive


def repaint(known: Tensor, mask: Tensor, jump: int, resample: int) -> Drive:
    """RePaint: each stretch of `jump` steps is walked `resample` times, noised back in between.

    Lugmayr et al. 2022, alg. 1 and app. B. So the new part comes to fit the known one, which
    replacement alone leaves to the network's single guess at each step. It takes `resample` times
    the steps.

    Raises:
        InputError: a corruption whose noise is not normal.
    """

    def drive(walk: Walk) -> Iterator[Step]:
        need_normal(walk.denoise, "repaint")
        return _resampled(walk, _begun(walk, known, mask), jump, resample)

    return drive


def _resampled(walk: Walk, x: Tensor, jump: int, resample: int) -> Iterator[Step]:
    steps = len(walk.times) - 1
    levels = walk.denoise.corruption.schedule.level(walk.times)
    index = 0
    for start in range(0, steps, jump):
        times = walk.times[start : start + jump + 1]
        a, b = (Level(levels.alpha[i], levels.sigma[i]) for i in (start, start + len(times) - 1))
        for turn in range(resample):
            if turn:
                x = noised_back(x, walk.noise(times[-1], times[0]), b, a)
            for step in walk.down(x, times):
                x = step.x
                yield step._replace(index=index, count=steps * resample)
                index += 1


def noised_back(x: Tensor, noise: Tensor, b: Level, a: Level) -> Tensor:
    """x at level b taken up to level a, as the forward process does: q(x_a | x_b)."""
    kept = a.alpha / b.alpha
    return kept * x + (a.sigma.square() - (kept * b.sigma).square()).clamp(min=0).sqrt() * noise


def _begun(walk: Walk, known: Tensor, mask: Tensor) -> Tensor:
    noised = walk.noised(known, walk.times[0])
    return noised + mask * (walk.x - noised)


def inpainted(
    scene: Scene,
    picture: Tensor,
    mask: Tensor,
    method: Method,
    jump: int,
    resample: int,
    shown: dict[str, Tensor],
) -> Edit:
    """The edit that makes a picture (1, C, H, W) new where a mask (1, 1, H, W) says so."""
    known = scene.encoded(picture)
    hole = sent(masks.shrunk(mask, scene.model.shape), scene.device)
    asks = scene.asks()
    if "mask" in scene.model.denoiser.network.wants:  # it was trained to fill in
        asks = [each._replace(image=picture[0], mask=mask[0]) for each in asks]
    way = replaced(known, hole) if method == "replace" else repaint(known, hole, jump, resample)
    return Edit(
        asks,
        editor=lambda denoise: Masked(denoise, known, hole),
        drive=way,
        before=shown,
        finish=lambda drawn: torch.where(mask == 0, picture, picture + mask * (drawn - picture)),
    )


@EDITS.register("inpaint", pictures=1)
def inpaint(
    scene: Scene,
    *,
    mask: Annotated[
        str | None, Field(description="a picture of the mask: white is new, black is kept")
    ] = None,
    box: Annotated[
        tuple[int, int, int, int] | None,
        Field(description="or a box: left, top, right and bottom in pixels of the model's size"),
    ] = None,
    color: Annotated[str | None, Field(description="or what has this colour")] = None,
    soft: Annotated[float, Field(ge=0, description="pixels over which the edge blends")] = 0.0,
    method: Method = "repaint",
    jump: Jump = 2,
    resample: Resample = 4,
) -> list[Edit]:
    """Part of a picture made new; what the mask leaves black is kept to the bit.

    Lugmayr et al. 2022 (RePaint), or plain replacement of what is known. When to use it: to remove
    a thing, or to put another in its place.

    Raises:
        InputError: not one of mask, box and colour, or a mask that is all black or all white.
    """
    picture = scene.picture
    height, width = picture.shape[-2:]
    if [mask, box, color].count(None) != 2:
        raise InputError("Say what is to be new by one of --mask, --box and --color.")
    if mask is not None:
        hole = masks.from_file(mask, height, width)
    elif box is not None:
        hole = masks.from_box(box, height, width)
    else:
        hole = masks.from_color(picture, color or "")
    hole = masks.softened(masks.checked(hole), soft)
    shown = {
        "original": picture,
        "mask": (2 * hole - 1).expand_as(picture),
        "hole": picture * (1 - hole),
    }
    return [inpainted(scene, picture, hole, method, jump, resample, shown)]


@EDITS.register("outpaint", pictures=1)
def outpaint(
    scene: Scene,
    *,
    left: Pixels = 0,
    top: Pixels = 0,
    right: Pixels = 0,
    bottom: Pixels = 0,
    method: Method = "repaint",
    jump: Jump = 2,
    resample: Resample = 4,
) -> list[Edit]:
    """What lies beyond a picture's edges: it is made smaller, and the margins are painted.

    The margins are in pixels of the model's size, and the picture keeps its shape. When to use it:
    to see more of a scene. For
    pictures larger than the model's, see `panorama`.

    Raises:
        InputError: no margins, or margins that leave nothing of the picture.
    """
    picture = scene.picture
    height, width = picture.shape[-2:]
    inner = height - top - bottom, width - left - right
    if not any((left, top, right, bottom)):
        raise InputError("Say how many pixels to add: --left, --top, --right or --bottom.")
    if min(inner) < 1:
        raise InputError(
            f"Margins of {left}, {top}, {right} and {bottom} pixels leave nothing of a picture of "
            f"{width} × {height}; give smaller ones."
        )
    scale = min(inner[0] / height, inner[1] / width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = torch.nn.functional.interpolate(
        picture, size, mode="bilinear", antialias=True, align_corners=False
    ).clamp(-1, 1)
    # Where one margin asks for more than the other the picture stays in the middle of the rest.
    top, left = top + (inner[0] - size[0]) // 2, left + (inner[1] - size[1]) // 2
    placed = torch.zeros_like(picture)
    placed[..., top : top + size[0], left : left + size[1]] = small
    hole = 1 - masks.from_box((left, top, left + size[1], top + size[0]), height, width)
    shown = {"original": picture, "placed": placed}
    return [inpainted(scene, placed, hole, method, jump, resample, shown)]
