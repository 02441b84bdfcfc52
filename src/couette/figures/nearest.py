"""What is new in a sample: the training pictures that it is nearest to, beside it."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from couette.contracts import Ask
from couette.data import Dataset, to_float
from couette.evaluation.neighbours import Nearest, nearest, reserve, rule_from
from couette.figures.asked import asks, walk_of
from couette.figures.registry import (
    Count,
    Guidance,
    Label,
    Length,
    Picture,
    Prompt,
    Sampler,
    Seed,
    figure,
    still,
)
from couette.figures.target import Target
from couette.generate import pictures, said
from couette.model import Model
from couette.render import grid


@figure("nearest", needs=("model", "pictures", "chain", "data"))
def nearest_pictures(
    target: Target,
    *,
    prompt: Prompt = (),
    label: Label = None,
    count: Count = 6,
    neighbours: Annotated[
        int, Field(ge=1, le=10, description="training pictures beside each sample")
    ] = 3,
    steps: Length = None,
    guidance: Guidance = None,
    sampler: Sampler = None,
    seed: Seed = 0,
) -> list[Picture]:
    """Samples beside the training pictures that they are nearest to.

    Near is by the Euclidean distance d over pixels in [-1, 1]. Below a sample stands d as a share
    of its mean distance to the 50 nearest (Carlini et al. 2023, sec. 5.1); the rule that says from
    where on that is a copy is calibrated on held-out pictures, as in `couette eval`.

    Raises:
        DataError: no pictures are held out.
        ShapeError: data of another size than the model's.
    """
    model, data = target.model, target.splits.train
    sampling = walk_of(model, steps, guidance, sampler)
    asked = asks(model, count, label, prompt)
    rule, _ = rule_from(target.splits)
    drawn = torch.cat(list(pictures(model, asked, seed=seed, sampling=sampling)))
    found = nearest(drawn, data)
    copies = rule(found)
    across = min(neighbours, found.among.shape[1])
    near = to_float(data.pictures(found.among[:, :across].flatten()))
    sheet = grid(
        torch.cat((drawn[:, None], near.reshape(-1, across, *drawn.shape[1:])), 1).flatten(0, 1),
        columns=1 + across,
        labels=_labels(model, data, asked, found, copies, across),
        column_titles=("sample", "nearest", *map(str, range(2, across + 1))),
    )
    note = (
        f"{int(copies.sum())} of {len(drawn)} count as copies: nearer than {rule.threshold:.2f} of "
        f"the mean distance to the 50 nearest, as {rule.false_alarms:.1%} of held-out pictures are."
    )
    notes = (f"Drawn with {said(sampling)}.", note, reserve(len(data), rule.made_from))
    return [still("nearest", sheet, *filter(None, notes))]


def _labels(
    model: Model, data: Dataset, asked: list[Ask], found: Nearest, copies: Tensor, across: int
) -> list[str]:
    """Below a sample what it was asked to be and how near, below a picture its caption or class."""
    classes = model.conditioner.classes
    labels = []
    for each, ratio, copy, near in zip(
        asked, found.ratio.tolist(), copies.tolist(), found.among.tolist(), strict=True
    ):
        name = each.words or ("" if each.label is None else classes[each.label])
        labels += [f"{name} ({ratio:.2f}{', copy' if copy else ''})".strip()]
        labels += [_named(data, place) for place in near[:across]]
    return labels


def _named(data: Dataset, place: int) -> str:
    if data.texts is not None:
        return data.texts[place]
    if data.labels is not None and data.classes:
        return data.classes[int(data.labels[place])]
    return ""
