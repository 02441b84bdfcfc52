"""Visual anagrams: pictures that show one thing as they are and another seen otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from couette.config import Spec
from couette.contracts import Ask, Cond, Corruption, Denoise, Prediction
from couette.editing.asking import combined, together
from couette.editing.registry import EDITS, VIEWS, Edit, Scene
from couette.editing.views import View, orthogonal
from couette.errors import InputError
from couette.generate import told
from couette.samplers import SAMPLERS
from couette.tensors import Stream, normal

COMMUTES = 0.1
"""How far a view of decoded latents may lie from the decoded view, as a share of their spread."""

Weight = Annotated[float, Field(gt=0)]


class Anagram:
    """The mean over views of what the denoiser says of each: a denoiser (Geng et al. 2024, eq. 4).

    x0 = Σ_i w_i·undo_i(D(look_i(x_t), t, cond_i)). Views are linear, so that the mean of the noises
    that the paper takes is the noise of this mean. One evaluation of N·B rows.

    Args:
        denoise: the denoiser.
        views: N of them, orthogonal.
        asked: what each view is told, one row each.
        weights: N, of sum 1; equal when not given.
        middle: the value of mid-gray.
        alternate: one view an evaluation, in turn, instead of all.
    """

    def __init__(
        self,
        denoise: Denoise,
        views: Sequence[View],
        asked: Sequence[Cond],
        weights: Sequence[float] = (),
        middle: float = 0.0,
        alternate: bool = False,
    ) -> None:
        self.denoise, self.views, self.asked = denoise, views, asked
        self.weights = weights or [1 / len(views)] * len(views)
        self.middle, self.alternate, self.calls = middle, alternate, 0

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        which = range(len(self.views))
        if self.alternate:
            which = range(self.calls % len(self.views), self.calls % len(self.views) + 1)
            self.calls += 1
        views = [self.views[i] for i in which]
        weights = [1.0] if self.alternate else self.weights
        # A view turns pictures about mid-gray, which normal noise has none of.
        alpha = self.corruption.schedule.level(t).alpha.to(x).reshape(-1, 1, 1, 1)
        gray = self.middle * alpha
        if self.corruption.noise == "uniform":  # of the mean 1/2
            gray = gray + 0.5 * self.corruption.schedule.level(t).sigma.to(x).reshape(-1, 1, 1, 1)
        answers = together(
            self.denoise,
            [view.look(x - gray) + gray for view in views],
            t,
            cond,
            [self.asked[i] for i in which],
            [self._recalled(view) for view in views],
        )

        def mean(found: Sequence[Tensor]) -> Tensor:
            undone = [
                w * view.undo(each - self.middle)
                for w, view, each in zip(weights, views, found, strict=True)
            ]
            return torch.stack(undone).sum(0) + self.middle

        def spread(found: Sequence[Tensor]) -> Tensor:
            """A variance has no sign: it is carried back to its pixel, and not turned over."""
            back = [
                view.undo(each) / view.undo(torch.ones_like(each))
                for view, each in zip(views, found, strict=True)
            ]
            return torch.stack(back).mean(0)

        return combined(answers, mean, spread)

    def _recalled(self, view: View) -> Callable[[Tensor], Tensor]:
        """How a recalled prediction is looked at."""
        return lambda x0: view.look(x0 - self.middle) + self.middle


@EDITS.register("anagram", pictures=0)
def anagram(
    scene: Scene,
    *,
    view: Annotated[tuple[Spec, ...], Field(description="how each label or prompt is seen")] = (
        Spec(name="identity"),
        Spec(name="rotate"),
    ),
    reduce: Annotated[
        Literal["mean", "alternate"],
        Field(description="all views at every evaluation, or one after the other"),
    ] = "mean",
    weight: Annotated[
        tuple[Weight, ...], Field(description="of each view; equal when not given")
    ] = (),
) -> list[Edit]:
    """A picture that shows one thing as it is and another turned, flipped, rearranged.

    Geng et al. 2024 (Visual anagrams). Give a label or prompt for each view. When to use it: for
    pictures with two meanings.

    Raises:
        InputError: not one label or prompt for each view, fewer than two views, a view that does
            not fit the pictures, or one that an autoencoder's latents do not follow.
    """
    if len(view) < 2:
        raise InputError("An anagram has two views or more; give --view identity rotate, say.")
    if weight and len(weight) != len(view):
        raise InputError(f"{len(weight)} weights were given for {len(view)} views; give one each.")
    if reduce == "alternate" and weight:
        raise InputError("Views that take turns have no weights; leave out one of the two.")
    if reduce == "alternate" and SAMPLERS.trait(scene.sampling.sampler.name, "adaptive"):
        raise InputError(
            f"The sampler '{scene.sampling.sampler.name}' measures its own error, which views that "
            "take turns make endless; use --reduce mean, or another sampler."
        )
    if reduce == "alternate":
        scene.refuse_reuse()
    config = scene.model.config
    _, height, width = scene.model.shape
    asks = scene.one_each(len(view), "views")
    asked = [told(scene.model, [each], scene.sampling) for each in asks]
    views = [VIEWS.build(each, height, width) for each in view]
    for spec, each in zip(view, views, strict=True):
        _refuse_crooked(scene, spec, each)
    seen = [VIEWS.build(each, config.height, config.width) for each in view]
    total = sum(weight)
    words = [
        f"{_brief(spec)}{f': {name}' if name else ''}"
        for spec, name in zip(view, (_name(scene, each) for each in asks), strict=True)
    ]
    # The same thing may be asked of the same view twice.
    words = [f"{word} ({i})" if words.count(word) > 1 else word for i, word in enumerate(words, 1)]
    return [
        Edit(
            [asks[0]] * scene.count,
            editor=lambda denoise: Anagram(
                denoise,
                views,
                asked,
                [each / total for each in weight],
                scene.middle,
                reduce == "alternate",
            ),
            views=dict(zip(words, (each.look for each in seen), strict=True)),
            shows=asks,
        )
    ]


def _brief(view: Spec) -> str:
    """A view in words, files by their names alone."""
    settings = {
        key: Path(str(value)).name if key == "file" else value
        for key, value in view.settings.items()
    }
    return str(VIEWS.brief(Spec(name=view.name, **settings)))


def _name(scene: Scene, ask: Ask) -> str:
    classes = scene.model.config.classes
    if ask.label is not None and ask.label < len(classes):
        return classes[ask.label]
    return ask.words or ""


def _refuse_crooked(scene: Scene, spec: Spec, view: View) -> None:
    """Refuse a view that is not orthogonal, or one of pixels on latents that do not follow it.

    Raises:
        InputError: with how far it is off.
    """
    shape = scene.model.shape
    if not orthogonal(view, shape):
        raise InputError(
            f"The view '{spec}' is not linear and orthogonal, so noise seen through it would not "
            "be noise; use one that only moves pixels or turns their sign."
        )
    if scene.latent and (off := commutator(scene, spec, view)) > COMMUTES:
        raise InputError(
            f"This model works on latents, and what it makes of latents seen through '{spec}' lies "
            f"{off:.0%} of the pictures' spread away from its pictures seen so (at most "
            f"{COMMUTES:.0%} is allowed); use a model of pixels for this view."
        )


@torch.no_grad()
def commutator(scene: Scene, spec: Spec, view: View) -> float:
    """How far decoding a view of latents lies from the view of what they decode to.

    Root mean square over the standard deviation, on eight random latents.
    """
    codec, config = scene.model.codec, scene.model.config
    index = torch.arange(8)
    keys = torch.stack((index, torch.zeros_like(index)), 1)
    z = normal(0, keys, Stream.PROBE, scene.model.shape).to(scene.device)
    pictures = codec.decode(z)
    outside: View = VIEWS.build(spec, config.height, config.width)
    gap = codec.decode(view.look(z)) - outside.look(pictures)
    return float(gap.square().mean().sqrt() / pictures.std())
