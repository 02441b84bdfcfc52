"""Text to picture from nothing."""

from __future__ import annotations

from couette.config import RunConfig, TextConfig
from couette.recipes.default import default
from couette.registry import RECIPES


@RECIPES.register("text-to-image")
def text_to_image() -> RunConfig:
    """Pictures for words, from captioned pictures: the default recipe, and attention to the words.

    The network learns to read as it learns to draw. For small pictures, whose pixels it works on.
    """
    base = default()
    return base.model_copy(
        update={
            "recipe": "text-to-image",
            "text": TextConfig(encoder="learned"),
            "training": base.training.model_copy(update={"minutes": 20.0}),
            "sampling": base.sampling.model_copy(update={"guidance": 3.0}),
        }
    )
