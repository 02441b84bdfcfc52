"""Pictures larger than the model's: many windows at once, averaged where they overlap."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from couette.contracts import Cond, Corruption, Denoise, Prediction
from couette.editing.registry import EDITS, Edit, Scene
from couette.errors import InputError

LARGEST = 8192
"""Pixels on a side of what is drawn in windows, at most."""

ROWS = 64
"""Windows that are denoised at once, at most."""


class Windowed:
    """The mean of what the denoiser says of overlapping windows: a denoiser (Bar-Tal et al. 2023,
    MultiDiffusion, eq. 5).

    Windows weigh most in their middle, so that no seams show.

    Args:
        denoise: the denoiser, of pictures of one window's size.
        window: (h, w) of a window.
        step: from one window to the next.
        wrap: whether windows go over the edges and come back on the other side: the picture tiles.
    """

    def __init__(
        self, denoise: Denoise, window: tuple[int, int], step: tuple[int, int], wrap: bool
    ) -> None:
        self.denoise, self.window, self.step, self.wrap = denoise, window, step, wrap
        tent = [1 - (torch.linspace(-1, 1, side + 2)[1:-1]).abs() for side in window]
        self.weight = tent[0][:, None] * tent[1]

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        places = [
            (rows.to(x.device)[:, None], columns.to(x.device))
            for rows in _axis(x.shape[-2], self.window[0], self.step[0], self.wrap)
            for columns in _axis(x.shape[-1], self.window[1], self.step[1], self.wrap)
        ]
        weight = self.weight.to(x)
        sums: dict[int, Tensor] = {}
        total = x.new_zeros(x.shape[-2:])
        at_once = max(1, ROWS // len(x))
        for start in range(0, len(places), at_once):
            part = places[start : start + at_once]
            told = {key: torch.cat([rows] * len(part)) for key, rows in cond.items() if key != "x0"}
            if "x0" in cond:
                told["x0"] = torch.cat([cond["x0"][..., r, c] for r, c in part])
            windows = torch.cat([x[..., r, c] for r, c in part])
            p = self.denoise(windows, t.repeat(len(part)) if t.ndim else t, told)
            for i, found in enumerate(p):
                if found is None:
                    continue
                whole = sums.setdefault(i, torch.zeros_like(x))
                for (r, c), each in zip(part, found.chunk(len(part)), strict=True):
                    whole[..., r, c] += weight * each
            for r, c in part:
                total[r, c] += weight
        means = {i: each / total for i, each in sums.items()}
        return Prediction(means[0], means.get(1), means.get(2))


def _axis(size: int, window: int, step: int, wrap: bool) -> list[Tensor]:
    """The positions of each window along an axis: the last ends at the edge, or all go round."""
    if wrap:
        count = -(-size // step)
        starts = [round(i * size / count) for i in range(count)]
    else:
        starts = [*range(0, size - window, step), size - window]
    return [(torch.arange(window) + start).remainder(size) for start in starts]


@EDITS.register("panorama", pictures=0)
def panorama(
    scene: Scene,
    *,
    height: Annotated[
        int | None, Field(ge=1, description="of the picture, in pixels; the model's own")
    ] = None,
    width: Annotated[
        int | None, Field(ge=1, description="of the picture; twice the model's")
    ] = None,
    overlap: Annotated[float, Field(ge=0.25, lt=1, description="share of a window")] = 0.5,
    tile: Annotated[
        bool, Field(description="its edges fit each other, so that it can be laid as tiles")
    ] = False,
) -> list[Edit]:
    """A picture larger than the model's, drawn in overlapping windows that agree.

    Bar-Tal et al. 2023 (MultiDiffusion). With --tile it repeats without a seam; then it may also be
    of the model's own size. When to use it: for landscapes, textures, wallpaper.

    Raises:
        InputError: a picture smaller than the model's or larger than `LARGEST`, or, on latents, of
            another multiple of pixels than theirs.
    """
    scene.refuse_reuse()
    config = scene.model.config
    _, inner_height, inner_width = scene.model.shape
    factor = config.height // inner_height
    height = height or config.height
    width = width or (config.width if tile else 2 * config.width)
    if height < config.height or width < config.width:
        raise InputError(
            f"A panorama is at least as large as the model's pictures, {config.width} × "
            f"{config.height} pixels, not {width} × {height}."
        )
    if max(height, width) > LARGEST:
        raise InputError(
            f"A panorama has sides of at most {LARGEST} pixels, not {width} × {height}."
        )
    if height % factor or width % factor:
        raise InputError(
            f"The sides of a panorama of this model are multiples of {factor}, not {width} × "
            f"{height}."
        )
    window = inner_height, inner_width
    steps = tuple(max(1, round(side * (1 - overlap))) for side in window)
    shape = (scene.model.shape[0], height // factor, width // factor)
    edge = min(window)
    codec = scene.model.codec

    def round_about(x: Tensor) -> Tensor:
        """Decoded latents whose edges have seen each other."""
        padded = F.pad(x, (edge,) * 4, mode="circular")
        cut = factor * edge
        return codec.decode(padded)[..., cut : cut + height, cut : cut + width]

    return [
        Edit(
            scene.asks(),
            editor=lambda denoise: Windowed(denoise, window, (steps[0], steps[1]), tile),
            shape=shape,
            decode=round_about if tile and scene.latent else None,
            views={"": lambda x: x, "laid twice": lambda x: x.repeat(1, 1, 2, 2)} if tile else {},
        )
    ]
