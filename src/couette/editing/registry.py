"""What an edit is: a function from a scene to how its pictures are drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from couette.config import SamplingConfig
from couette.contracts import Ask
from couette.errors import InputError
from couette.generate import Drive, Editor, ask, sampling_of
from couette.model import Model, pixel_range
from couette.registry import Registry
from couette.tensors import sent

EDITS: Registry[Any] = Registry("edit")
"""(scene, **settings) -> list[Edit]. The settings are keyword-only."""

VIEWS: Registry[Any] = Registry("view")
PARTITIONS: Registry[Any] = Registry("partition")
OPERATORS: Registry[Any] = Registry("operator")

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True)
class Scene:
    """What an edit is made on, and what is asked of it.

    Attributes:
        model: the model.
        pictures: (1, C, H, W) each, in [-1, 1], of the model's size.
        count: how many pictures are to be drawn.
        labels: classes by name or number, in the order given.
        prompts: words, in the order given.
        sampling: how they are drawn.
        raw: the pictures as they were given, of their own size, for edits that take others.
        seed: of all noise.
    """

    model: Model
    pictures: tuple[Tensor, ...] = ()
    count: int = 1
    labels: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    raw: tuple[Tensor, ...] = ()
    seed: int = 0

    @property
    def device(self) -> str:
        return self.model.denoiser.runtime.device

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the model's pictures, in pixels."""
        return self.model.config.height, self.model.config.width

    @property
    def latent(self) -> bool:
        """Whether the model works on an autoencoder's latents."""
        return pixel_range(self.model.codec) is None

    @property
    def middle(self) -> float:
        """The encoded value of mid-gray, about which pictures are turned into their negatives."""
        limits = pixel_range(self.model.codec)
        return 0.0 if limits is None else sum(limits) / 2

    @property
    def picture(self) -> Tensor:
        """The one picture, (1, C, H, W) in [-1, 1].

        Raises:
            InputError: none was given, or several.
        """
        self.need(1)
        return self.pictures[0]

    def need(self, *counts: int) -> None:
        """Refuse another number of pictures.

        Raises:
            InputError: with how many are needed.
        """
        if len(self.pictures) not in counts:
            words = " or ".join(_NUMBERS[count] for count in counts)
            plural = "" if counts == (1,) else "s"
            raise InputError(
                f"This edit needs {words} picture{plural}, and {len(self.pictures)} were given; "
                "give their files after the edit's name."
            )

    def refuse_reuse(self) -> None:
        """Refuse features that are shared between evaluations, where these are of other things.

        Raises:
            InputError: they are to be shared.
        """
        if self.sampling.reuse > 1:
            raise InputError(
                "This edit asks the network of different things in turn, so its features can't be "
                "shared between evaluations; leave out --reuse."
            )

    def refuse_sampler(self) -> None:
        """Refuse another sampler than the model's own, where an edit walks in its own way.

        Raises:
            InputError: one was asked for.
        """
        if self.sampling.sampler != sampling_of(self.model).sampler:
            raise InputError(
                f"This edit walks by steps of DDIM's kind, not by '{self.sampling.sampler.name}'; "
                "leave out --sampler."
            )

    def encoded(self, picture: Tensor) -> Tensor:
        """A picture as the denoiser works on it, (1, C, H, W), on its device."""
        return self.model.codec.encode(sent(picture, self.device)).detach()

    def asks(self) -> list[Ask]:
        """What each picture is asked to show: labels and prompts are taken in turn.

        Raises:
            InputError, UnknownName: what the model can't be asked.
        """
        return self.each(self.count)

    def each(self, count: int) -> list[Ask]:
        """`count` asks, labels and prompts taken in turn."""
        names: list[int | str] = (
            [self.labels[i % len(self.labels)] for i in range(count)] if (self.labels) else []
        )
        return ask(self.model, count, names or None, self.sampling, self.prompts[:count])

    def one_each(self, count: int, of: str) -> list[Ask]:
        """One ask for each of `count` things, such as views.

        Raises:
            InputError: neither one label or prompt nor as many as there are things.
        """
        for name, given in (("label", self.labels), ("prompt", self.prompts)):
            if len(given) not in (0, 1, count):
                raise InputError(
                    f"{len(given)} {name}s were given for {count} {of}; give one for each, or one "
                    "for all."
                )
        return self.each(count)


_NUMBERS = {0: "no", 1: "one", 2: "two", 3: "three"}


@dataclass(frozen=True)
class Edit:
    """How one row of pictures is drawn.

    Attributes:
        asked: what each picture is to show.
        name: what sets the row apart from the others of the same edit.
        editor, drive, shape: as `generate.steps` takes them.
        before: pictures to be seen before the results, (1, C, H, W) in [-1, 1], by their names.
        finish: what is done to the decoded pictures, such as putting back what is known.
        views: how each result is looked at, by name: the same picture turned over, from far.
        shows: what each of the views was asked to show, where they were asked for different things;
            Ask() for nothing.
        notes: what to say of it, in sentences.
        sampling: how it is drawn, where that is not as the scene is.
        decode: from what the sampler ends with to pictures, where that is not the codec's way.
        truth: (1, C, H, W), what the results should be, where that is known.
    """

    asked: Sequence[Ask]
    name: str = ""
    editor: Editor | None = None
    drive: Drive | None = None
    shape: tuple[int, int, int] | None = None
    before: Mapping[str, Tensor] = field(default_factory=dict)
    finish: Callable[[Tensor], Tensor] | None = None
    views: Mapping[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    shows: Sequence[Ask] = ()
    notes: tuple[str, ...] = ()
    sampling: SamplingConfig | None = None
    truth: Tensor | None = None
    decode: Callable[[Tensor], Tensor] | None = None
