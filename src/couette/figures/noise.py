"""What noise is: pictures of it, and random variables as such."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from couette.figures.registry import Picture, Seed, figure, still
from couette.figures.target import Target
from couette.render import conditionals, histograms, strip
from couette.tensors import Stream, normal

Values = NDArray[np.float64]

_HEIGHT, _HEIGHT_SD = 171.0, 9.5
_WEIGHT, _SLOPE, _WEIGHT_SD = 72.0, 0.9, 9.0
"""Invented, of about the size that surveys of adults find: centimetres, kilograms."""


def noise_picture(channels: int, side: int, seed: int) -> Tensor:
    """(C, side, side) of standard normal noise."""
    return normal(seed, torch.tensor([[channels, 0]]), Stream.NOISE, (channels, side, side))[0]


@figure("noise")
def noise(
    target: Target,
    *,
    side: Annotated[int, Field(ge=1, le=1024, description="pixels")] = 64,
    seed: Seed = 0,
) -> list[Picture]:
    """Normal noise as a picture, with one channel and with three."""
    pictures = [noise_picture(1, side, seed), noise_picture(3, side, seed)]
    image = strip(
        {"": pictures},
        columns=["black and white: 1 channel", "RGB: 3 channels"],
        scale=max(1, 320 // side),
    )
    note = "Standard normal noise; black is -1 and below, white 1 and above."
    return [still("noise", image, note)]


@figure("random-variables")
def random_variables(
    target: Target,
    *,
    count: Annotated[int, Field(ge=10, le=1_000_000, description="samples")] = 20_000,
    seed: Seed = 0,
) -> list[Picture]:
    """Y = 5X + 3 for a normal X, and the weights that go with a height: p(y | x)."""
    x, y = scaled(count, seed)
    axis = np.linspace(-16, 22, 500)
    first = histograms(
        {"X ~ N(0, 1)": x, "Y = 5X + 3": y},
        densities={
            "X ~ N(0, 1)": (axis, density(axis, 0, 1)),
            "Y = 5X + 3": (axis, density(axis, 3, 5)),
        },
        title="Scaled and shifted, a normal variable stays normal",
    )
    height, weight = people(min(count, 4000), seed)
    kilograms = np.linspace(25, 125, 400)
    given = {
        cm: (kilograms, density(kilograms, expected_weight(cm), _WEIGHT_SD))
        for cm in (155.0, 170.0, 185.0)
    }
    second = conditionals(
        height, weight, given, title="Height does not decide weight: it decides p(weight | height)"
    )
    return [
        still(
            "scaled",
            first,
            f"Y = 5X + 3 over {count:,} samples: mean {y.mean():.3f} (exactly 3), standard "
            f"deviation {y.std():.3f} (exactly 5).",
        ),
        still(
            "conditional",
            second,
            "The people are synthetic: height N(171, 9.5²) cm, and weight normal about "
            "72 + 0.9·(height − 171) kg with standard deviation 9.",
        ),
    ]


def scaled(count: int, seed: int) -> tuple[Values, Values]:
    """Samples of X ~ N(0, 1) and of Y = 5X + 3, (N,) each."""
    x = _normal(count, seed, 0)
    return x, 5 * x + 3


def people(count: int, seed: int) -> tuple[Values, Values]:
    """Synthetic heights (cm) and weights (kg), (N,) each."""
    height = _HEIGHT + _HEIGHT_SD * _normal(count, seed, 1)
    return height, expected_weight(height) + _WEIGHT_SD * _normal(count, seed, 2)


def expected_weight(height: float | Values) -> Values:
    """The mean weight (kg) of synthetic people of this height (cm)."""
    return np.asarray(_WEIGHT + _SLOPE * (np.asarray(height) - _HEIGHT), dtype=np.float64)


def density(x: Values, mean: float | Values, sd: float) -> Values:
    """The normal density."""
    z = (x - mean) / sd
    return np.asarray(np.exp(-z * z / 2) / (sd * math.sqrt(2 * math.pi)), dtype=np.float64)


def _normal(count: int, seed: int, draw: int) -> Values:
    values = normal(seed, torch.tensor([[0, draw]]), Stream.NOISE, (count,))
    return np.asarray(values[0].double().numpy())
