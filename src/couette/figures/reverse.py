"""What a model makes of noise: its steps, its pictures, and the way there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import torch
from PIL.Image import Image

from couette.config import SamplingConfig
from couette.contracts import Ask
from couette.data import Dataset, to_float
from couette.errors import InputError
from couette.figures.asked import Moment, asks, moment_words, moments, walk_of
from couette.figures.registry import (
    Count,
    Fps,
    Frames,
    Guidance,
    Label,
    Length,
    Picture,
    Prompt,
    Rows,
    Runs,
    Sampler,
    Seed,
    figure,
    still,
)
from couette.figures.target import Target, resolve
from couette.generate import pictures, said
from couette.model import Model
from couette.render import beside as side_by_side
from couette.render import columns_for, filmstrip, grid, spread, strip
from couette.render import steps as steps_sheet


@figure("steps", needs=("model", "pictures", "chain"))
def steps(
    target: Target,
    *,
    steps: Length = 5,
    count: Count = 8,
    label: Label = None,
    prompt: Prompt = (),
    guidance: Guidance = None,
    sampler: Sampler = None,
    seed: Seed = 0,
) -> list[Picture]:
    """A short walk from noise: the model's input beside its prediction, step by step."""
    model = target.model
    sampling = walk_of(model, steps, guidance, sampler)
    walk = list(moments(model, asks(model, count, label, prompt), sampling, seed))
    image = steps_sheet(
        [
            {"x (model input)": each.x, "model prediction": each.predicted}
            for each in walk
            if each.predicted is not None
        ],
        names=[moment_words(model.denoiser.corruption.schedule, each.t) for each in walk[:-1]],
    )
    return [still("steps", image, f"Drawn with {said(sampling)}.")]


@figure("sheet", needs=("model", "pictures", "chain"))
def sheet(
    target: Target,
    *,
    count: Count | None = None,
    steps: Length = None,
    label: Label = None,
    prompt: Prompt = (),
    guidance: Guidance = None,
    sampler: Sampler = None,
    beside: Runs = (),
    seed: Seed = 0,
) -> list[Picture]:
    """A sheet of samples, every class in turn."""
    sheets, notes = {}, []
    for name, each in named([target, *others(target, beside, "sheet")]).items():
        model = each.model
        sampling = walk_of(model, steps, guidance, sampler)
        sheets[name] = drawn_sheet(model, count, label, sampling, seed, prompt)
        notes.append(f"{name} at step {model.config.step:,}: {said(sampling)}.")
    image = side_by_side(sheets) if beside else sheets.popitem()[1]
    return [still("sheet", image, *notes)]


def drawn_sheet(
    model: Model,
    count: int | None,
    label: str | None,
    sampling: SamplingConfig,
    seed: int,
    prompt: Sequence[str] = (),
) -> Image:
    """Samples in rows: 8 × 8 unless another count is asked for, or 8 rows of up to 10 classes."""
    classes = len(model.conditioner.classes)
    columns = columns_for(classes) if label is None else None
    columns = columns or 8
    asked = asks(model, count or 8 * columns, label, prompt)
    drawn = torch.cat(list(pictures(model, asked, seed=seed, sampling=sampling)))
    return _sheet(drawn, asked, model.conditioner.classes)


@figure("reverse", needs=("model", "pictures", "chain"))
def reverse(
    target: Target,
    *,
    steps: Length = None,
    count: Count = 8,
    rows: Rows = 2,
    frames: Frames = 60,
    fps: Fps = 12.0,
    label: Label = None,
    prompt: Prompt = (),
    guidance: Guidance = None,
    sampler: Sampler = None,
    seed: Seed = 0,
) -> list[Picture]:
    """The reverse process: a film of x and of the predicted picture, and a strip of moments."""
    model = target.model
    sampling = walk_of(model, steps, guidance, sampler)
    walk = _thinned(
        moments(model, asks(model, count, label, prompt), sampling, seed), sampling.steps, frames
    )
    titles = [moment_words(model.denoiser.corruption.schedule, each.t) for each in walk]
    film = [
        strip({"x": each.x, "predicted": _answer(each)}, title=title)
        for each, title in zip(walk, titles, strict=True)
    ]
    rows = min(rows, count)
    # One picture's x above its prediction, then the next picture's.
    cells = [torch.stack((each.x[:rows], _answer(each)[:rows]), 1).flatten(0, 1) for each in walk]
    names = ["x", "predicted"] * rows
    note = f"Drawn with {said(sampling)}."
    return [
        Picture("film", tuple(film), (note,), fps),
        still("filmstrip", filmstrip(cells, titles=titles, names=names), note),
    ]


@figure("real", needs=("model", "data", "pictures", "chain"))
def real(
    target: Target,
    *,
    count: Count = 40,
    steps: Length = None,
    label: Label = None,
    prompt: Prompt = (),
    guidance: Guidance = None,
    sampler: Sampler = None,
    seed: Seed = 0,
) -> list[Picture]:
    """Pictures of the data beside pictures of the model."""
    model = target.model
    sampling = walk_of(model, steps, guidance, sampler)
    data = target.splits.train
    asked = asks(model, count, label, prompt)
    index = matching(data, asked)
    if model.conditioner.words is not None and data.texts is not None and not prompt:
        texts = data.texts
        asked = [a._replace(words=texts[i]) for a, i in zip(asked, index.tolist(), strict=True)]
    drawn = torch.cat(list(pictures(model, asked, seed=seed, sampling=sampling)))
    like = to_float(data.pictures(index))
    classes = model.conditioner.classes
    sheets = {"real": _sheet(like, asked, classes), "generated": _sheet(drawn, asked, classes)}
    note = f"Real pictures are of the training data; generated with {said(sampling)}."
    return [still("real", side_by_side(sheets), note)]


def matching(data: Dataset, asked: list[Ask]) -> torch.Tensor:
    """Different samples of the data, the first of each class asked for, (B,) int64.

    Where a class has too few they come again.
    """
    whole = torch.arange(len(data))
    seen: Counter[int | None] = Counter()
    found = []
    for each in asked:
        pool = whole
        if each.label is not None and data.labels is not None:
            pool = whole[data.labels == each.label]
        pool = pool if len(pool) else whole
        found.append(int(pool[seen[each.label] % len(pool)]))
        seen[each.label] += 1
    return torch.tensor(found, dtype=torch.int64)


def others(
    target: Target, names: tuple[str, ...], topic: str, *, alike: bool = True
) -> list[Target]:
    """The runs to draw beside a target.

    Args:
        alike: whether they must be of its kind: pictures, points, or one-step denoisers.

    Raises:
        InputError: one is no run, or not of the same kind.
    """
    found = []
    for name in names:
        other = resolve(name, average=target.average, runtime=target.runtime)
        if other.kind not in ("run", "model"):
            raise InputError(f"'{topic}' draws runs beside each other; {other.described} is none.")
        if alike and (other.points, other.one_step) != (target.points, target.one_step):
            raise InputError(
                f"'{topic}' can't draw {target.described} and {other.described} beside each "
                "other: they are not of one kind."
            )
        found.append(other)
    return found


def named(targets: list[Target]) -> dict[str, Target]:
    """Targets by their names, or by what was given where two names are the same."""
    short = [target.name for target in targets]
    words = short if len(set(short)) == len(short) else [target.given for target in targets]
    return dict(zip(words, targets, strict=True))


def _sheet(drawn: torch.Tensor, asked: list[Ask], classes: tuple[str, ...]) -> Image:
    """A grid with a column for each class, or with the class below each picture."""
    named = [classes[ask.label] if ask.label is not None else ask.words or "" for ask in asked]
    if not any(named) or len(set(named)) == 1:
        return grid(drawn, title=named[0])
    across = columns_for(len(set(named)))
    if across:
        return grid(drawn, columns=across, column_titles=named[:across])
    return grid(drawn, labels=named)


def _answer(moment: Moment) -> torch.Tensor:
    return moment.x if moment.predicted is None else moment.predicted


def _thinned(walk: Iterator[Moment], count: int, most: int) -> list[Moment]:
    """At most `most` moments, the first and the last among them, without keeping the others."""
    wanted = set(spread(count + 1, most))
    return [moment for number, moment in enumerate(walk) if number in wanted]
