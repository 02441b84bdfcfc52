"""What a figure is: a function from a target to pictures, and what it needs of the target."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from PIL.Image import Image
from pydantic import Field

from couette.config import Spec
from couette.registry import Registry

Need = Literal[
    "config",
    "data",
    "log",
    "model",
    "weights",
    "network",
    "pictures",
    "points",
    "chain",
    "latents",
    "embeddings",
]
"""What a figure can ask of its target.

config: a corruption of its own. data: samples to look at. log: what training wrote. model: a
trained one that draws. weights: a trained one of any kind. network: its plan. pictures, points:
what is drawn. chain: a model that makes pictures from noise, which a one-step denoiser does not.
latents: an autoencoder. embeddings: an encoder of pictures and words.
"""


@dataclass(frozen=True)
class Picture:
    """One drawing.

    Attributes:
        name: what sets it apart from the topic's other drawings; a part of a file name.
        frames: one for a still picture, several for an animation.
        notes: what to say beside it, in plain sentences.
        fps: frames a second of an animation.
    """

    name: str
    frames: tuple[Image, ...]
    notes: tuple[str, ...] = ()
    fps: float = 12.0

    @property
    def image(self) -> Image:
        """The picture, or the last frame."""
        return self.frames[-1]


def still(name: str, image: Image, *notes: str) -> Picture:
    """A picture that does not move."""
    return Picture(name, (image,), notes)


FIGURES: Registry[Any] = Registry("figure")
"""(target, **settings) -> list[Picture]. The settings are keyword-only."""

NEEDS: dict[str, frozenset[Need]] = {}
"""What each figure needs of its target, by the figure's name."""

Make = Callable[..., list[Picture]]


def figure(name: str, *, needs: Iterable[Need] = ()) -> Callable[[Make], Make]:
    """Decorator: enter a figure under `name`, with what it needs of its target."""

    def enter(make: Make) -> Make:
        FIGURES.register(name)(make)
        NEEDS[name] = frozenset(needs)
        return make

    return enter


# Settings that several figures share.
Seed = Annotated[int, Field(ge=0, lt=2**63, description="of every draw")]
Count = Annotated[int, Field(ge=1, le=4096, description="pictures")]
Columns = Annotated[int, Field(ge=2, le=64, description="columns")]
Rows = Annotated[int, Field(ge=1, le=16, description="pictures, one a row")]
Frames = Annotated[int, Field(ge=2, le=400, description="frames of the animation, at most")]
Fps = Annotated[float, Field(gt=0, le=50, description="frames a second")]
Label = Annotated[
    str | None, Field(description="a class by name or number; every class in turn when not given")
]
Prompt = Annotated[
    tuple[str, ...], Field(description="words, of a model that reads them; several in turn")
]
Length = Annotated[
    int | None,
    Field(ge=1, le=100_000, description="sampling steps; the model's own when not given"),
]
Guidance = Annotated[
    float | None, Field(description="classifier-free guidance scale; the model's own, or 1 for off")
]
Sampler = Annotated[Spec | None, Field(description="sampler; the model's own when not given")]
Runs = Annotated[tuple[str, ...], Field(description="more runs to draw beside it")]
