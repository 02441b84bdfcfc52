"""When a picture is decided: the prediction on its way, against the picture that it ends at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, NamedTuple, cast

import torch
from pydantic import Field
from torch import Tensor

from couette.config import SamplingConfig, Spec, spec
from couette.contracts import Ask
from couette.errors import InputError
from couette.exact import Ideal
from couette.figures.asked import looked_at
from couette.figures.registry import (
    Columns,
    Count,
    Guidance,
    Picture,
    Seed,
    figure,
    still,
)
from couette.figures.target import Target
from couette.generate import ask, said, sampling_of, times_of
from couette.generate import steps as steps_of
from couette.model import Model, assemble
from couette.registry import SCHEDULES
from couette.render import curves, spread, strip
from couette.schedules import ratio

PLAIN = spec("ddim")
USUAL = (spec("edm"), spec("linear"), spec("cosine"), spec("flow"))
_ALIKE = 0.95
"""The correlation from which on a prediction is called the picture."""
_SHOWN = 0.1, 200
"""Where on the axis of sigma/alpha something happens."""


class Walk(NamedTuple):
    """predicted: (N, B, C, H, W), a prediction a step. level: (N,) the sigma/alpha that each was
    made at. end: (B, C, H, W)."""

    predicted: Tensor
    level: Tensor
    end: Tensor


@figure("likeness", needs=("model", "pictures", "chain"))
def likeness(
    target: Target,
    *,
    schedules: Annotated[
        tuple[Spec, ...],
        Field(description="of an exact world; the well-known ones when not given"),
    ] = (),
    steps: Annotated[int, Field(ge=2, le=1000, description="sampling steps")] = 40,
    sampler: Annotated[Spec, Field(description="sampler")] = PLAIN,
    count: Count = 64,
    columns: Columns = 12,
    label: Annotated[
        str | None, Field(description="a class by name or number; anything when not given")
    ] = None,
    guidance: Guidance = None,
    seed: Seed = 0,
) -> list[Picture]:
    """How like the predicted picture is to the one it ends at: step by step, in even steps of t.

    Raises:
        InputError: schedules asked of a trained model, which has its own.
    """
    walks = {}
    for name, model in _models(target, schedules).items():
        sampling = sampling_of(
            model, sampler=sampler, grid="uniform", steps=steps, guidance=guidance
        )
        walks[name] = walk(model, ask(model, count, label), sampling, seed)
    x, y = f"step, even in t; mean of {count} pictures", "correlation with the end"
    alike, apart = _lines(walks, correlation), _lines(walks, distance)
    by_level = {name: (each.level, alike[name][1]) for name, each in walks.items()}
    shown = spread(steps, columns)
    rows = {
        name: torch.stack([*each.predicted[shown, 0], each.end[0]]) for name, each in walks.items()
    }
    titles = [*(f"step {i + 1}" for i in shown), "end"]
    notes = [f"Drawn with {said(sampling)}."]
    notes += [_decided(name, each) for name, each in walks.items()]
    return [
        still("likeness", curves(alike, x=x, y=y), *notes),
        still("level", curves(by_level, x="σ/α, noise on the right", y=y, log_x=True, xlim=_SHOWN)),
        still("distance", curves(apart, x=x, y="RMS distance to the end")),
        still("pictures", strip(rows, columns=titles), "Predictions from the same noise."),
    ]


def walk(model: Model, asked: list[Ask], sampling: SamplingConfig, seed: int) -> Walk:
    """The predictions of one batch on its way, and its end, as pictures on the CPU."""
    predicted = []
    for step in steps_of(model, asked, seed=seed, sampling=sampling):
        predicted.append(looked_at(model, step.x0))
        x = step.x
    level = ratio(model.denoiser.corruption.schedule.level(times_of(model, sampling)[:-1]))
    return Walk(torch.stack(predicted), level, looked_at(model, x))


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's, over the pixels of each picture: (..., C, H, W) to (...); 0 where one is flat."""
    a, b = (each.double().flatten(-3) for each in (a, b))
    a, b = (each - each.mean(-1, keepdim=True) for each in (a, b))
    return torch.cosine_similarity(a, b, dim=-1)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """The root of the mean squared difference of each picture: (..., C, H, W) to (...)."""
    return (a - b).double().square().flatten(-3).mean(-1).sqrt()


def _models(target: Target, schedules: tuple[Spec, ...]) -> dict[str, Model]:
    """The model under each schedule; a trained one under its own."""
    if target.kind == "exact":
        return {str(each): _under(target.model, each) for each in schedules or USUAL}
    if schedules:
        raise InputError(
            f"{target.described} has the schedule it was trained with; leave out --schedules, or "
            "show an exact world, such as exact:digits."
        )
    return {str(target.diffusion.schedule): target.model}


def _under(model: Model, schedule: Spec) -> Model:
    known = cast(Ideal, model.network).world.under(SCHEDULES.build(schedule))
    diffusion = model.config.diffusion.model_copy(update={"schedule": schedule})
    config = model.config.model_copy(update={"diffusion": diffusion})
    return assemble(config, Ideal(known), model.denoiser.runtime)


def _lines(
    walks: dict[str, Walk], measure: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    return {
        name: (torch.arange(len(each.predicted)) + 1, measure(each.predicted, each.end).mean(1))
        for name, each in walks.items()
    }


def _decided(name: str, walk: Walk) -> str:
    """From which step on the prediction is the picture, in words."""
    below = correlation(walk.predicted, walk.end).mean(1) < _ALIKE
    first = min(int(below.sum()), len(below) - 1)
    return (
        f"{name}: correlation {_ALIKE} from step {first + 1} of {len(below)} on, where "
        f"σ/α = {float(walk.level[first]):.2g}."
    )
