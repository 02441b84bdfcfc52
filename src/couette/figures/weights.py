"""How much each noise level counts in training: what an objective weighs without saying so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

import torch
from PIL.Image import Image
from pydantic import Field
from torch import Tensor

from couette.config import STATES, DiffusionConfig, Spec, spec
from couette.contracts import Schedule
from couette.denoiser import build_corruption
from couette.figures.registry import Picture, figure, still
from couette.figures.target import Target
from couette.registry import PARAMETERIZATIONS, TIMES, WEIGHTINGS
from couette.render import curves
from couette.schedules import entries, log_snr

_DDPM = DiffusionConfig(
    schedule=spec("linear"), parameterization=spec("eps"), told=spec("index"), times=spec("uniform")
)
_KNOWN: Mapping[str, DiffusionConfig] = {
    "eps, linear (DDPM)": _DDPM,
    "eps, cosine (improved DDPM)": _DDPM.model_copy(update={"schedule": spec("cosine")}),
    "v, cosine": _DDPM.model_copy(
        update={"schedule": spec("cosine"), "parameterization": spec("v")}
    ),
    "x0, linear": _DDPM.model_copy(update={"parameterization": spec("x0")}),
    "eps, linear, min-snr": _DDPM.model_copy(update={"weighting": spec("min-snr")}),
    "EDM": DiffusionConfig(),
    "flow matching": DiffusionConfig(
        schedule=spec("flow"), parameterization=spec("flow"), times=spec("uniform")
    ),
}
_LEAST = 2000
"""Times drawn of a distribution, at least."""
_SHOWN = 12.0
"""The log-SNR on either side of 0 that is drawn."""

On = Annotated[Literal["x0", "eps"], Field(description="whose squared error is weighed")]


@figure("weights")
def weights(
    target: Target,
    *,
    weightings: Annotated[
        tuple[Spec, ...], Field(description="which; all fixed ones when not given")
    ] = (),
    on: On = "x0",
) -> list[Picture]:
    """What each noise level's error counts: its weight times how often training draws it."""
    own = target.diffusion if target.kind in ("run", "model", "recipe") else _DDPM
    made = []
    if not target.one_step and own.noise not in STATES:
        given = weightings or tuple(spec(name) for name in _fixed())
        each = {str(one): own.model_copy(update={"weighting": one}) for one in given}
        title = f"{own.parameterization.name}, {own.schedule.name}, times {own.times.name}"
        made.append(still("weightings", _drawn(each, on, title), *_notes(on)))
    made.append(still("objectives", _drawn(_KNOWN, on, "Well-known objectives"), *_notes(on)))
    return made


class Effective(NamedTuple):
    """An objective's weight at log-SNRs (N,) rising: on the squared error of x0, per unit of
    log-SNR."""

    log_snr: Tensor
    weight: Tensor


def effective(config: DiffusionConfig) -> Effective:
    """The factor on x0's error at each level, times the density with which training draws it."""
    schedule = build_corruption(config).schedule
    t, share = _times(schedule, config.times)
    level = schedule.level(t)
    scalings = PARAMETERIZATIONS.bind(config.parameterization)(level)
    factor = WEIGHTINGS.bind(config.weighting)(level, scalings) / scalings.out.square()
    places = log_snr(level)
    # Each stands for what is nearer to it than to its neighbours; the outermost have but one.
    width = (places[:-2] - places[2:]) / 2
    return Effective(places[1:-1].flip(0), (factor[1:-1] * share[1:-1] / width).flip(0))


def _times(schedule: Schedule, times: Spec) -> tuple[Tensor, Tensor]:
    """Times that training draws, rising, and the share of each: every entry of a table."""
    table = entries(schedule) or 1
    count = table * -(-_LEAST // table)
    middles = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    t, repeats = TIMES.bind(times)(schedule, middles).unique(return_counts=True)
    return t, repeats / count


def _fixed() -> list[str]:
    """The weightings that are known before training."""
    return [name for name in WEIGHTINGS if not WEIGHTINGS.trait(name, "learned", False)]


def _drawn(configs: Mapping[str, DiffusionConfig], on: str, title: str) -> Image:
    """The weights of some objectives, each 1 where picture and noise are as strong."""
    return curves(
        _merged({name: _relative(effective(config), on) for name, config in configs.items()}),
        x="log SNR (noise to the left, detail to the right)",
        y=f"weight on the error of {on}",
        title=title,
        log_y=True,
        xlim=(-_SHOWN, _SHOWN),
        ylim=(1e-4, 1e4),
    )


def _relative(found: Effective, on: str) -> Effective:
    """The weight as a multiple of that at log SNR 0, on x0's error or on that of eps."""
    places, weight = found
    log = weight.log() - (places if on == "eps" else 0)
    return Effective(places, (log - log[int(places.abs().argmin())]).exp())


def _merged(lines: Mapping[str, Effective]) -> dict[str, Effective]:
    """The lines, those that are the same under one name: "snr, uniform"."""
    made: dict[str, Effective] = {}
    for name, line in lines.items():
        twin = next((other for other, drawn in made.items() if _same(drawn, line)), None)
        made[f"{twin}, {name}" if twin else name] = made.pop(twin) if twin else line
    return made


def _same(one: Effective, other: Effective) -> bool:
    return one.weight.shape == other.weight.shape and all(map(torch.allclose, one, other))


def _notes(on: str) -> tuple[str, ...]:
    return (
        f"How much a squared error of {on} counts at each log-SNR: the weighting times how often "
        "training draws the level; each curve is 1 at log SNR 0.",
    )
