"""Networks of diffusers as ours: from (x, told, cond) to what they predict.

Shapes: B batch, C channels, H height, W width, L tokens, D features.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection

import torch
from torch import Tensor, nn

from couette.contracts import Cond
from couette.errors import InputError
from couette.networks.common import refuse_unknown

_WITHOUT = {
    "label": "This model draws one of its classes, and none was named; give --label.",
    "image": (
        "This model enlarges pictures and was given none; draw with it what another model has "
        "drawn, as couette.generate.cascade does."
    ),
    "mask": (
        "This model fills in pictures and was given none; ask it with a picture and a mask, as "
        "couette.contracts.Ask holds them."
    ),
}


class Foreign(nn.Module, ABC):
    """A network of another library.

    It computes in the dtype of its weights, whatever the runtime casts around it.

    Args:
        inner: the network.
        wants: what it must be told beside x and the time.
    """

    def __init__(self, inner: nn.Module, wants: Collection[str] = ()) -> None:
        super().__init__()
        self.inner, self.wants = inner, frozenset(wants)

    def forward(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """(B, C, H, W) to (B, C, H, W), or twice the channels where a variance is learned.

        Raises:
            ConfigError: a key of `cond` that the network can't be told.
            InputError: one that it must be told, and was not.
        """
        refuse_unknown(cond, self.wants)
        for key, sentence in _WITHOUT.items():
            if key in self.wants and key not in cond:
                raise InputError(sentence)
        dtype = next(self.inner.parameters()).dtype
        # Times, `told` and that of a noised picture, are exact in float32 alone.
        given = {
            key: value.to(dtype) if value.is_floating_point() and key != "image_noise" else value
            for key, value in cond.items()
        }
        with torch.autocast(x.device.type, enabled=False):
            return self.answer(x.to(dtype), told, given)

    @abstractmethod
    def answer(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        """The inner network's output; everything is in its dtype but `told` (B,) float32."""


class Plain(Foreign):
    """UNet2DModel: told the time, and a class where it has any."""

    def answer(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        found: Tensor = self.inner(x, told, class_labels=cond.get("label"), return_dict=False)[0]
        return found


class CrossAttending(Foreign):
    """UNet2DConditionModel: told words; further channels hold a mask and the rest of a picture
    (Stable Diffusion's inpainting), or a picture to be enlarged (DeepFloyd IF's second stage)."""

    def answer(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        beside = [cond[key] for key in ("mask", "masked", "image") if key in cond]
        found: Tensor = self.inner(
            torch.cat((x, *beside), dim=1),
            told,
            encoder_hidden_states=cond["text"],
            class_labels=cond.get("image_noise"),
            return_dict=False,
        )[0]
        return found


class Transformer(Foreign):
    """DiTTransformer2DModel: told the time and a class."""

    def answer(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        found: Tensor = self.inner(x, told, class_labels=cond["label"], return_dict=False)[0]
        return found


class Joint(Foreign):
    """SD3Transformer2DModel: told words, token by token and pooled."""

    def answer(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        found: Tensor = self.inner(
            hidden_states=x,
            timestep=told,
            encoder_hidden_states=cond["text"],
            pooled_projections=cond["pooled"],
            return_dict=False,
        )[0]
        return found


class Packed(Foreign):
    """FluxTransformer2DModel: works on squares of 2×2 latents, each a token with its place.

    Args:
        inner, wants: as for `Foreign`.
        guidance: the scale of guidance that it is told, where it was distilled to take one.
    """

    def __init__(
        self, inner: nn.Module, wants: Collection[str], guidance: float | None = None
    ) -> None:
        super().__init__(inner, wants)
        self.guidance = guidance

    def answer(self, x: Tensor, told: Tensor, cond: Cond) -> Tensor:
        height, width = x.shape[-2] // 2, x.shape[-1] // 2
        rows = torch.arange(height, device=x.device, dtype=x.dtype)[:, None].expand(height, width)
        columns = torch.arange(width, device=x.device, dtype=x.dtype).expand(height, width)
        places = torch.stack((torch.zeros_like(rows), rows, columns), 2).reshape(-1, 3)
        guidance = None if self.guidance is None else torch.full_like(told, self.guidance)
        found: Tensor = self.inner(
            hidden_states=packed(x),
            timestep=told / 1000,  # it multiplies by 1000 itself
            guidance=guidance,
            encoder_hidden_states=cond["text"],
            pooled_projections=cond["pooled"],
            txt_ids=places.new_zeros(cond["text"].shape[1], 3),
            img_ids=places,
            return_dict=False,
        )[0]
        return unpacked(found, height)


def packed(x: Tensor) -> Tensor:
    """(B, C, 2h, 2w) to (B, h·w, 4·C): squares of 2×2 as tokens."""
    batch, channels, height, width = x.shape
    squares = x.reshape(batch, channels, height // 2, 2, width // 2, 2)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, 4 * channels)


def unpacked(tokens: Tensor, height: int) -> Tensor:
    """The inverse of `packed`, for h = `height`."""
    batch, count, channels = tokens.shape
    squares = tokens.reshape(batch, height, count // height, channels // 4, 2, 2)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels // 4, 2 * height, -1)
