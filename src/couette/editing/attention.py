"""Prompt-to-prompt: a picture drawn again with more or less attention to some of its words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field
from torch import Tensor

from couette.conditioners import Words
from couette.contracts import Step
from couette.editing.registry import EDITS, Edit, Scene
from couette.errors import InputError
from couette.generate import Drive, Walk
from couette.model import Model
from couette.networks.text import CrossAttention, tapped


def reweighed(model: Model, factors: dict[int, float]) -> Drive:
    """The sampler's own walk, each attention to the token at a place multiplied by its factor.

    Hertz et al. 2023, sec. 3.2, "attention re-weighting". The other words' shares stay as they are.
    """

    def drive(walk: Walk) -> Iterator[Step]:
        def tap(name: str, weights: Tensor) -> Tensor:
            weights = weights.clone()
            for place, factor in factors.items():
                # Guidance asks of each picture again, untold, in the rows behind.
                weights[: len(walk.x), ..., place] *= factor
            return weights

        # The taps stand while the sampler runs, not while whoever reads its steps does.
        run = walk.down(walk.x)
        while True:
            with tapped(model.network, tap):
                step = next(run, None)
            if step is None:
                return
            yield step

    return drive


@EDITS.register("reweigh", pictures=0)
def reweigh(
    scene: Scene,
    *,
    word: Annotated[
        tuple[str, ...], Field(description="a word of the prompt and its factor, as in red=2")
    ] = (),
    factor: Annotated[
        tuple[float, ...], Field(description="more factors of the first word, a row for each")
    ] = (),
) -> list[Edit]:
    """The same picture with more or less of a word: 2 doubles the attention to it, 0 takes it away.

    Hertz et al. 2023 (Prompt-to-prompt). The first row is the picture as it would be. When to use
    it: to turn one word of a prompt up or down.

    Raises:
        InputError: a model without attention to words, not one prompt, a word that it lacks, or
            guidance whose passes are made apart.
    """
    model, words = scene.model, scene.model.conditioner.words
    within = any(isinstance(each, CrossAttention) for each in model.network.modules())
    if not isinstance(words, Words) or not within:
        raise InputError(
            "'reweigh' changes the attention of a network of Couette's to the words of its prompt, "
            "and this model has none."
        )
    if len(scene.prompts) != 1:
        raise InputError("'reweigh' needs one prompt; give --prompt \"…\".")
    pairs = [_pair(each) for each in word]
    if not pairs:
        raise InputError("'reweigh' needs a word of the prompt; give --word \"red=2\".")
    places: dict[str, list[int]] = {}
    for name, at in words.tokenizer.words(scene.prompts[0]):
        places.setdefault(name.lower(), []).extend(p for p in at if p < words.length)
    if scene.sampling.passes == "apart":
        raise InputError("'reweigh' tells guidance's two passes by their rows; draw them together.")
    for name, _ in pairs:
        if places.get(name.lower()) == []:
            raise InputError(
                f"The word '{name}' lies beyond the {words.length} tokens that this model reads; "
                "give a shorter prompt."
            )
        if name.lower() not in places:
            raise InputError(
                f"The prompt has no word '{name}'; its words are: {', '.join(places)}."
            )
    (first, amount), *others = pairs
    rows = [1.0, amount, *factor]
    fixed = {place: by for name, by in others for place in places[name.lower()]}
    edits = []
    for row in rows:
        chosen = {**fixed, **dict.fromkeys(places[first.lower()], row)}
        edits.append(Edit(scene.asks(), name=f"{first} × {row:g}", drive=reweighed(model, chosen)))
    return edits


def _pair(text: str) -> tuple[str, float]:
    name, equals, number = text.rpartition("=")
    try:
        if not equals or not name:
            raise ValueError
        return name, float(number)
    except ValueError:
        raise InputError(f"A word and its factor are written red=2, not '{text}'.") from None
