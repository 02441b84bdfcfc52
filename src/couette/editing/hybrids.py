"""Hybrid pictures: each part of a picture, such as its low frequencies, shows something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.codecs import Symmetric
from couette.config import Spec
from couette.contracts import Ask, Codec, Cond, Corruption, Denoise, Prediction
from couette.editing.asking import combined, together
from couette.editing.filters import gaussian
from couette.editing.partitions import Part, whole
from couette.editing.registry import EDITS, PARTITIONS, Edit, Scene
from couette.errors import InputError
from couette.generate import told
from couette.tensors import sent

_FREQUENCY = Spec(name="frequency")

SUMS = 1e-4
"""How far the parts of a picture of unit variance may be from summing to it."""


class Hybrid:
    """Part i of what the denoiser says when told i: a denoiser (Geng et al. 2025, eq. 5).

    x0 = Σ_i f_i(D(x_t, t, cond_i)), with Σ f_i the identity; the noise is combined alike, since all
    share x_t. Where a part is known it stands for itself. One evaluation of N·B rows.

    The parts are those of pictures: latents are decoded, and their sum is encoded. The frequencies
    of latents are not the picture's, whose fine detail lies in their channels as well.

    Args:
        denoise: the denoiser.
        parts: the maps f_i.
        asked: what each part that is not known is told, one row each.
        known: the first parts of a picture, f_i of it, (1, C, H, W) each.
        codec: between what the denoiser works on and the pictures that are parted.
    """

    def __init__(
        self,
        denoise: Denoise,
        parts: Sequence[Part],
        asked: Sequence[Cond],
        known: Sequence[Tensor] = (),
        codec: Codec | None = None,
    ) -> None:
        self.denoise, self.parts, self.asked, self.known = denoise, parts, asked, known
        self.codec = codec or Symmetric()

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        answers = together(self.denoise, [x] * len(self.asked), t, cond, self.asked)
        parts = self.parts[len(self.known) :]

        def summed(found: Sequence[Tensor]) -> Tensor:
            pictures = [self.codec.decode(each) for each in found]
            drawn = [part.take(each) for part, each in zip(parts, pictures, strict=True)]
            whole = torch.stack(drawn).sum(0) + sum(self.known)
            return self.codec.encode(whole).to(found[0])

        return combined(answers, summed, lambda found: torch.stack([*found]).mean(0))


@EDITS.register("hybrid", pictures=0, optional=1)
def hybrid(
    scene: Scene,
    *,
    parts: Annotated[
        Spec, Field(description="how a picture is parted: frequency:sigma=2, bands, color, …")
    ] = _FREQUENCY,
) -> list[Edit]:
    """A picture whose parts show different things: from far one, from near another.

    Geng et al. 2025 (Factorized diffusion). Give a label or prompt for each part, in their order.
    With a picture, its first part is kept and the others are drawn to it. The parts are those of
    pictures, also where the model works on latents. When to use it: for pictures that change with
    distance, light or motion; with a sampler that adds noise, and things of one outline.

    Raises:
        InputError: not one label or prompt for each part, or parts that do not fit the pictures or
            do not sum to them.
    """
    scene.need(0, 1)
    shape = scene.model.config.channels, *scene.size
    found: tuple[Part, ...] = PARTITIONS.build(parts, shape)
    if (off := whole(found, shape)) > SUMS:
        raise InputError(
            f"The parts of '{parts}' must be linear and sum to the picture, and are {off:.2g} off; "
            "make the last of them what the others leave."
        )
    kept = [found[0].take(sent(each, scene.device)) for each in scene.pictures]
    drawn = found[len(kept) :]
    asks = scene.one_each(len(drawn), "parts")
    asked = [told(scene.model, [each], scene.sampling) for each in asks]
    shown = [*[Ask()] * len(kept), *asks]
    if parts.name in ("frequency", "bands"):
        far = 1.5 * max(PARTITIONS.check(parts).values())
        looks = {
            "near": lambda x: x,
            "detail": lambda x: found[-1].take(x) + x.mean((1, 2, 3), keepdim=True),
            "far": lambda x: gaussian(x, far),
        }
        shows = [shown[-1], shown[-1], shown[0]]
    else:
        looks = {"whole": lambda x: x, **{each.name: each.take for each in found}}
        shows = [Ask(), *shown]
    return [
        Edit(
            [asks[0]] * scene.count,
            editor=lambda denoise: Hybrid(denoise, found, asked, kept, scene.model.codec),
            before={"original": scene.pictures[0]} if scene.pictures else {},
            views=looks,
            shows=shows,
        )
    ]
