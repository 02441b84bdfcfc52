"""Noise schedules as curves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from PIL.Image import Image
from pydantic import Field

from couette.config import Spec, spec
from couette.contracts import Schedule
from couette.figures.forward import explodes
from couette.figures.registry import Picture, figure, still
from couette.figures.target import Target
from couette.registry import SCHEDULES
from couette.render import Levels, curves
from couette.render import schedules as overlaid
from couette.schedules import Table

TABLES = (spec("linear"), spec("linear", steps=300), spec("scaled-linear"), spec("cosine"))
CONTINUOUS = (spec("edm"), spec("flow"))
_POINTS = 401
_LEAST = 1e-3
"""The smallest σ worth a place on a logarithmic axis."""
_LEFT_OVER = 0.05
"""More than this of the picture at the end is worth a word."""


@figure("schedule")
def schedule(
    target: Target,
    *,
    schedules: Annotated[
        tuple[Spec, ...], Field(description="which; the well-known ones when not given")
    ] = (),
) -> list[Picture]:
    """β, ᾱ, √ᾱ against √(1 − ᾱ) and the log signal-to-noise ratio of noise schedules."""
    own = TABLES[0] if target.kind in ("data", "nothing") else target.diffusion.schedule
    asked = schedules or _known(own)
    built = {_name(each): SCHEDULES.build(each) for each in asked}
    exploding = {name: each for name, each in built.items() if explodes(each)}
    bounded = {name: each for name, each in built.items() if name not in exploding}
    made = []
    if bounded:
        made.append(still("bounded", _overlaid(bounded), *_ends(bounded)))
    if exploding:
        made.append(still("exploding", _overlaid(exploding)))
    return made + _alone(asked[0])


def levels_of(schedule: Schedule) -> Levels:
    """The levels of a schedule where it is drawn: at a table's entries; from σ = 0.001 on where
    σ grows past 1; else evenly in t."""
    if isinstance(schedule, Table):
        t = torch.arange(1, schedule.steps + 1, dtype=torch.float64) / schedule.steps
        alpha_bar = schedule.alpha_bar
        return Levels(t, alpha_bar.sqrt(), (1 - alpha_bar).sqrt(), schedule.betas)
    first = 0.0
    if explodes(schedule):
        first = float(schedule.time(-2 * torch.tensor(_LEAST, dtype=torch.float64).log()))
    t = torch.linspace(first, 1, _POINTS, dtype=torch.float64)
    level = schedule.level(t)
    return Levels(t, level.alpha, level.sigma)


def _known(own: Spec) -> tuple[Spec, ...]:
    """The target's own schedule first, then the well-known ones that are not the same."""
    return own, *(each for each in (*TABLES, *CONTINUOUS) if not _same(each, own))


def _same(one: Spec, other: Spec) -> bool:
    return one.name == other.name and SCHEDULES.check(one) == SCHEDULES.check(other)


def _overlaid(made: Mapping[str, Schedule]) -> Image:
    return overlaid({_marked(name, each): levels_of(each) for name, each in made.items()})


def _name(each: Spec) -> str:
    """A schedule with its length and what else was set: "linear, T = 300". A table that is written
    out is known by its length."""
    built, settings = SCHEDULES.build(each), SCHEDULES.check(each)
    length = f", T = {built.steps}" if isinstance(built, Table) else ""
    told = (key for key in each.settings if key not in ("steps", "values"))
    return each.name + length + "".join(f", {key} = {settings[key]}" for key in told)


def _marked(name: str, each: Schedule) -> str:
    """The name, and for a table what is left of the picture at its end."""
    if not isinstance(each, Table):
        return name
    end = float(each.alpha_bar[-1].sqrt())
    return f"{name}: ends at √ᾱ = {end:.2g}"


def _ends(made: Mapping[str, Schedule]) -> list[str]:
    """What a reader might stumble over."""
    notes = []
    for name, each in made.items():
        if isinstance(each, Table) and (end := float(each.alpha_bar[-1].sqrt())) > _LEFT_OVER:
            notes.append(
                f"{name} ends at √ᾱ = {end:.2f}, not at pure noise: sampling, which begins at "
                "pure noise, begins a little off."
            )
    return notes


def _alone(own: Spec) -> list[Picture]:
    """One schedule by itself: how picture and noise are mixed, and the betas of a table."""
    built: Schedule = SCHEDULES.build(own)
    levels = levels_of(built)
    alpha, sigma = torch.as_tensor(levels.alpha), torch.as_tensor(levels.sigma)
    if not isinstance(built, Table):
        lines = {r"$\alpha_t$: picture": (levels.t, alpha), r"$\sigma_t$: noise": (levels.t, sigma)}
        wide = explodes(built)
        return [still("mix", curves(lines, x="t", title=_name(own), log_y=wide))]
    entry = torch.arange(built.steps)
    mix = curves(
        {r"$\sqrt{\bar\alpha_t}$: picture": (entry, alpha),
         r"$\sqrt{1-\bar\alpha_t}$: noise": (entry, sigma)},
        x="t", title=f"Picture and noise in x_t: {_name(own)}",
    )  # fmt: skip
    betas = curves({"β": (entry, built.betas)}, x="t", y="β", title=f"β: {_name(own)}")
    note = f"The betas run from {float(built.betas[0]):.4g} to {float(built.betas[-1]):.4g}."
    return [still("mix", mix), still("beta", betas, note)]
