"""How alike an encoder finds texts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from couette.conditioners import Words
from couette.errors import CouetteError, InputError
from couette.evaluation.retrieval import alike as cosines
from couette.evaluation.retrieval import embed_texts
from couette.figures.registry import Picture, figure, still
from couette.figures.target import Target
from couette.model import load_encoder
from couette.render import matrix
from couette.runtime import choose

SENTENCES = ("I am dining", "I am eating dinner", "I am having dinner", "I am working")
"""What is compared without captions: three that mean the same, and one that does not."""

_FEW = 6
"""Captions that are compared where no texts are given."""


@figure("alike", needs=("weights", "embeddings"))
def alike(
    target: Target,
    *,
    text: Annotated[
        tuple[str, ...],
        Field(description="texts to compare, two or more; captions of the data when not given"),
    ] = (),
) -> list[Picture]:
    """How alike an encoder finds texts: the cosine of each with each.

    With --text "I am dining" "I am eating dinner" "I am having dinner" "I am working" those are
    compared, otherwise a few captions of the data. It knows only words that its captions had: of
    others it has seen no picture.

    Raises:
        InputError: a single text.
    """
    if len(text) == 1:
        raise InputError('\'alike\' compares texts; give two or more, as --text "a cat" "a dog".')
    runtime = choose(target.runtime)
    average = target.average
    config, network, tokenizer = load_encoder(target.saved, average=average, runtime=runtime)
    reads = Words(tokenizer, config.text.length)
    captions = () if text else _captions(target, reads)
    compared = text or captions or SENTENCES
    for each in compared:
        reads.read_whole(each)
    found = cosines(embed_texts(network, reads, compared, runtime))
    image = matrix(found.numpy(), compared, compared, title="cosine of the embeddings", high=1.0)
    if text:
        return [still("alike", image)]
    what = "Captions of the data" if captions else "The captions of its data are not at hand"
    return [still("alike", image, f"{what}; --text compares others.")]


def _captions(target: Target, reads: Words) -> tuple[str, ...]:
    """A few captions of the data, no two read alike; none where there are not two of them."""
    if not target.has_data:
        return ()
    try:
        texts = target.splits.train.texts or ()
    except CouetteError:  # data that are no longer where they were
        return ()
    kinds = [text for text in dict.fromkeys(texts) if text.strip()]
    few = kinds[:: max(1, len(kinds) // _FEW)][:_FEW]
    read = {tuple(row): text for row, text in zip(reads(few)["text"].tolist(), few, strict=True)}
    return tuple(read.values()) if len(read) > 1 else ()
