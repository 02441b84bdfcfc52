"""What a model sees in noisy pictures, in one step."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from couette.codecs import Unit
from couette.contracts import Ask, Level
from couette.errors import InputError
from couette.figures import forward
from couette.figures.asked import predicted, walk_of
from couette.figures.noising import First, scale_for
from couette.figures.registry import Columns, Length, Picture, Rows, Runs, Seed, figure, still
from couette.figures.reverse import drawn_sheet, named, others
from couette.figures.target import Target
from couette.render import beside as side_by_side
from couette.render import grid, strip
from couette.schedules import entries, ratio

SIGMAS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0)
Sigmas = Annotated[
    tuple[Annotated[float, Field(ge=0)], ...],
    Field(min_length=1, description="noise levels of z = x + σ·ε, for pictures in [0, 1]"),
]


class Look(NamedTuple):
    """Samples in columns, one noise level each: clean, noised, predicted (B, C, H, W)."""

    titles: list[str]
    clean: Tensor
    noised: Tensor
    predicted: Tensor


@figure("predictions", needs=("model", "data", "pictures"))
def predictions(
    target: Target,
    *,
    columns: Columns = 8,
    first: First = 0,
    beside: Runs = (),
    seed: Seed = 0,
) -> list[Picture]:
    """Input, noised and predicted, with more noise from column to column."""
    rows, titles = compared([target, *others(target, beside, "predictions")], columns, first, seed)
    return [
        still(
            "predictions",
            strip(rows, columns=titles),
            "Pictures kept for evaluation; the noise rises from left to right, and each prediction "
            "is one evaluation of the network.",
        )
    ]


@figure("compare", needs=("model", "data", "pictures"))
def compare(
    target: Target,
    *,
    beside: Annotated[str, Field(description="the other run")],
    columns: Columns = 8,
    steps: Length = None,
    seed: Seed = 0,
) -> list[Picture]:
    """Two runs on the same pictures and the same noise: their predictions and their samples."""
    pair = [target, *others(target, (beside,), "compare")]
    rows, titles = compared(pair, columns, 0, seed)
    made = [still("predictions", strip(rows, columns=titles))]
    if not target.one_step:
        sheets = {
            name: drawn_sheet(each.model, None, None, walk_of(each.model, steps), seed)
            for name, each in named(pair).items()
        }
        made.append(still("sheets", side_by_side(sheets)))
    return made


def compared(
    targets: list[Target], columns: int, first: int, seed: int
) -> tuple[dict[str, Tensor], list[str]]:
    """The rows of a strip: input, noised, and each target's predictions; and titles of columns.

    Raises:
        InputError: targets that were not trained on the same corruption of pictures of one size.
    """
    lead = targets[0]
    looks = {name: look(each, lead, columns, first, seed) for name, each in named(targets).items()}
    one = next(iter(looks.values()))
    for name, other in looks.items():
        if other.noised.shape != one.noised.shape or not torch.equal(other.noised, one.noised):
            raise InputError(
                f"'{name}' was trained on another corruption than {lead.described}, so there are "
                "no noised pictures to compare them on; use 'sheet --beside' for their samples."
            )
    rows = {"input": one.clean, "noised": one.noised}
    if len(looks) == 1:
        return {**rows, "predicted": one.predicted}, one.titles
    return {**rows, **{name: each.predicted for name, each in looks.items()}}, one.titles


def look(target: Target, source: Target, columns: int, first: int, seed: int) -> Look:
    """One step of the target's model on the source's pictures, with rising noise."""
    model, data = target.model, source.unseen
    if (model.config.channels, model.config.height, model.config.width) != data.sizes[:3]:
        raise InputError(
            f"'{target.name}' was trained on pictures of another size than those of "
            f"{source.described}; compare runs of one size."
        )
    index = forward.chosen(data, first, columns)
    x0 = forward.encoded(data, index, model.codec)
    corruption = model.denoiser.corruption
    if target.one_step:
        sigmas = torch.linspace(0, 1, columns, dtype=torch.float64)
        times = corruption.schedule.time(-2 * sigmas.log())
    else:
        times = forward.columns_of(corruption, columns)
    times = times[: len(index)]
    level = corruption.schedule.level(times)
    x = forward.noised(x0, level, forward.noise_for(index, x0, seed, corruption.noise))
    answer = predicted(model, x, times, _asked(model.conditioner.classes, data.labels, index))
    decode = model.codec.decode
    noisy = x if target.one_step else forward.fitted(x, level)
    titles = [_title(target, t) for t in times]
    return Look(titles, decode(x0), decode(noisy), decode(answer))


@figure("sigmas", needs=("data", "pictures"))
def sigmas(
    target: Target,
    *,
    sigmas: Sigmas = SIGMAS,
    rows: Rows = 3,
    first: First = 0,
    seed: Seed = 0,
) -> list[Picture]:
    """z = x + σ·ε on pictures in [0, 1]; for a one-step denoiser also what it makes of each."""
    data, unit = target.unseen, Unit()
    index = forward.chosen(data, first, rows)
    x0 = forward.encoded(data, index, unit)
    noised = sweep(x0, index, sigmas, seed)
    titles = [f"σ = {sigma:g}" for sigma in sigmas]
    cells = [unit.decode(z[i]) for i in range(len(index)) for z in noised]
    scale = scale_for(x0, len(sigmas))
    image = grid(cells, columns=len(sigmas), column_titles=titles, scale=scale)
    made = [still("sigmas", image, "z = x + σ·ε, x in [0, 1], shown clipped to [0, 1].")]
    if target.one_step and target.kind == "run":
        made.append(_beyond(target, noised, index, sigmas))
    return made


def sweep(x0: Tensor, index: Tensor, sigmas: tuple[float, ...], seed: int) -> list[Tensor]:
    """x + σ·ε at each σ, (B, C, H, W) each; a picture keeps its ε."""
    eps = forward.noise_for(index, x0, seed)
    one = torch.ones((), dtype=torch.float64)
    return [forward.noised(x0, Level(one, one * sigma), eps) for sigma in sigmas]


def _beyond(
    target: Target, noised: list[Tensor], index: Tensor, sigmas: tuple[float, ...]
) -> Picture:
    """A denoiser of one σ at others."""
    model = target.model
    schedule = model.denoiser.corruption.schedule
    cells, names = [], []
    answers = []
    for z, sigma in zip(noised, sigmas, strict=True):
        t = schedule.time(-2 * torch.tensor(sigma, dtype=torch.float64).log())
        answers.append(predicted(model, z, t.expand(len(z)), [Ask()] * len(z)))
    for i in range(len(index)):
        cells += [model.codec.decode(z[i]) for z in (*noised, *answers)]
        names += ["noised", "denoised"]
    trained = target.diffusion.times.settings.get("sigma", 0.5)
    titles = [f"σ = {sigma:g}" + ("\n(trained)" if sigma == trained else "") for sigma in sigmas]
    scale = scale_for(noised[0], len(sigmas))
    image = grid(cells, columns=len(sigmas), column_titles=titles, row_titles=names, scale=scale)
    return still(
        "denoised",
        image,
        f"The denoiser learned σ = {trained:g} alone; all else is out of its distribution. "
        "Pictures kept for evaluation.",
    )


def _title(target: Target, t: Tensor) -> str:
    schedule = target.model.denoiser.corruption.schedule
    if target.one_step:
        return f"σ = {float(ratio(schedule.level(t))):.2f}"
    if entries(schedule) is None and not forward.explodes(schedule):
        return f"amount {float(t):.2f}"
    return forward.words(schedule, t)


def _asked(classes: tuple[str, ...], labels: Tensor | None, index: Tensor) -> list[Ask]:
    """What each picture really shows, where the model knows classes."""
    if not classes or labels is None:
        return [Ask()] * len(index)
    return [Ask(label=int(labels[i])) for i in index]
