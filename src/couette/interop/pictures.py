"""Pictures to work from: to be filled in, or enlarged from what another model has drawn.

Shapes: B asks, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from couette.contracts import Ask, Codec, Level
from couette.denoiser import told as tellings
from couette.errors import InputError, ShapeError
from couette.model import Model
from couette.schedules import Table
from couette.tensors import Stream, normal


class Enlarged:
    """The picture to be enlarged, as a network of DeepFloyd IF's second stage is told it.

    Args:
        shape: (C, H, W) of the pictures that the model makes.
        noising: what `image_noise` is a time of.
    """

    def __init__(self, shape: tuple[int, int, int], noising: Table) -> None:
        self.shape, self.noising = shape, noising

    def __call__(self, asked: Sequence[Ask]) -> dict[str, Tensor]:
        """ "image" (B, C, H, W) and "image_noise" (B,) float32; nothing where none is asked for.

        Raises:
            InputError: some asks have one and some have none; a mask.
            ShapeError: one of another size.
        """
        images = _images(asked, self.shape)
        if images is None:
            return {}
        if any(each.mask is not None for each in asked):
            raise InputError("This model enlarges whole pictures; leave out the mask.")
        t = torch.tensor([each.image_noise for each in asked], dtype=torch.float64)
        index = tellings.index(t, self.noising.level(t), steps=self.noising.steps)
        return {"image": images, "image_noise": index.clamp(min=0).float()}


class FilledIn:
    """The picture to be filled in and where, as Stable Diffusion's inpainting networks are told it.

    Args:
        shape: (C, H, W) of the pictures that the model makes.
        codec: to what it works on.
    """

    def __init__(self, shape: tuple[int, int, int], codec: Codec) -> None:
        self.shape, self.codec = shape, codec

    @torch.no_grad()
    def __call__(self, asked: Sequence[Ask]) -> dict[str, Tensor]:
        """ "mask" (B, 1, h, w) and "masked" (B, D, h, w), of the latents' size; nothing where no
        picture is asked for. What is to be filled in is gray in the picture that is encoded.

        Raises:
            InputError: some asks have a picture and some have none, or one without a mask.
            ShapeError: one of another size.
        """
        images = _images(asked, self.shape)
        if images is None:
            return {}
        masks = [each.mask for each in asked if each.mask is not None]
        if len(masks) < len(asked):
            raise InputError(
                "This model fills in pictures; give a mask, 1 where it shall, as well."
            )
        if any(mask.shape != (1, *self.shape[1:]) for mask in masks):
            raise ShapeError(
                f"A mask of {tuple(masks[0].shape)} does not fit pictures of {self.shape}; give "
                f"{(1, *self.shape[1:])}."
            )
        mask = (torch.stack(masks) >= 0.5).float()
        rest = self.codec.encode(images * (1 - mask.to(images)))
        small = F.interpolate(mask, rest.shape[-2:])
        return {"mask": small.to(rest), "masked": rest}


def _images(asked: Sequence[Ask], shape: tuple[int, int, int]) -> Tensor | None:
    """The pictures that are asked with, (B, C, H, W) float32; None where there are none."""
    images = [each.image for each in asked if each.image is not None]
    if not images:
        return None
    if len(images) < len(asked):
        raise InputError(
            f"{len(images)} of {len(asked)} pictures asked for are to be made from another; give "
            "one for each, or for none."
        )
    if any(image.shape != shape for image in images):
        raise ShapeError(
            f"A picture of {tuple(images[0].shape)} (channels, height, width) was given to a model "
            f"that works from those of {shape}; resize it first."
        )
    return torch.stack(images).float()


def enlarging(
    model: Model,
    pictures: Tensor,
    asked: Sequence[Ask],
    *,
    seed: int = 0,
    first: int = 0,
    noise: float = 0.251,
) -> list[Ask]:
    """What the second stage of a cascade is asked, for what the first one drew.

    Each picture is brought to the model's size and noised a little, so that what the first stage
    got wrong can be mended (Saharia et al. 2022, sec. 2.4, "noise conditioning augmentation").

    Args:
        model: the second stage.
        pictures: (B, C, h, w) in [-1, 1].
        asked: what the first stage was asked, for each.
        seed, first: the noise of picture i is that of the seed and `first` + i.
        noise: the time to which they are noised; 0.251 is entry 250 of a table of 1000.

    Raises:
        InputError: a model that enlarges nothing, or a time outside [0, 1].
    """
    enlarged = model.conditioner.pictures
    if not isinstance(enlarged, Enlarged):
        raise InputError(
            "The second model enlarges nothing; give one that does, such as DeepFloyd IF's second "
            "stage."
        )
    if not 0 <= noise <= 1:
        raise InputError(
            f"The noise of a picture to be enlarged is a time from 0 to 1, not {noise}."
        )
    large = F.interpolate(pictures.float(), enlarged.shape[1:], mode="bilinear", align_corners=True)
    keys = torch.arange(first, first + len(large), dtype=torch.int64)
    drawn = normal(
        seed, torch.stack((keys, torch.zeros_like(keys)), 1), Stream.IMAGE, enlarged.shape
    )
    level: Level = enlarged.noising.level(torch.tensor(noise, dtype=torch.float64))
    noised = level.alpha.float() * large + level.sigma.float() * drawn.to(large)
    return [
        each._replace(image=image, image_noise=noise)
        for each, image in zip(asked, noised, strict=True)
    ]
