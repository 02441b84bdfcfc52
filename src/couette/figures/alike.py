"""How alike an encoder finds texts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from couette.conditioners import Words
from couette.errors import InputError
from couette.evaluation.retrieval import alike as cosines
from couette.evaluation.retrieval import embed_texts
from couette.figures.registry import Picture, figure, still
from couette.figures.target import Target
from couette.model import load_encoder
from couette.render import matrix
from couette.runtime import choose

SENTENCES = ("I am dining", "I am eating dinner", "I am having dinner", "I am working")
"""What is compared where nothing is given: three that mean the same, and one that does not."""


@figure("alike", needs=("weights", "embeddings"))
def alike(
    target: Target,
    *,
    text: Annotated[
        tuple[str, ...], Field(description="texts to compare, two or more")
    ] = SENTENCES,
) -> list[Picture]:
    """How alike an encoder finds texts: the cosine of each with each.

    It knows only words that its captions had: of others it has seen no picture.

    Raises:
        InputError: fewer than two texts.
    """
    if len(text) < 2:
        raise InputError('\'alike\' compares texts; give two or more, as --text "a cat" "a dog".')
    runtime = choose(target.runtime)
    average = target.average
    config, network, tokenizer = load_encoder(target.saved, average=average, runtime=runtime)
    reads = Words(tokenizer, config.text.length)
    for each in text:
        reads.read_whole(each)
    found = embed_texts(network, reads, list(text), runtime)
    image = matrix(cosines(found).numpy(), text, text, title="cosine of the embeddings", high=1.0)
    return [still("alike", image)]
