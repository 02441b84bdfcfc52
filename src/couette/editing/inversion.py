"""Inversion: the noise that a picture comes from, and what can be done with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from couette.config import SamplingConfig, Spec
from couette.contracts import Ask, Level, Step
from couette.editing.registry import EDITS, Edit, Scene, Share
from couette.errors import InputError
from couette.generate import Drive, Walk, ask, times_of, told
from couette.samplers import ddim, ddim_inverse
from couette.samplers.moves import is_noise, move, need_normal, stretches
from couette.samplers.noisy import ancestral
from couette.tensors import Stream, normal, sent

Rounds = Annotated[
    int, Field(ge=1, description="evaluations a step; 1 is plain DDIM, more retraces it better")
]
Retrace = 10
"""Rounds after which an inversion is retraced well on smooth grids."""


@torch.no_grad()
def noise_of(scene: Scene, pictures: Sequence[Tensor], asked: Sequence[Ask], rounds: int) -> Tensor:
    """The x (N, C, H, W) at the scene's first time that DDIM would lead to these pictures from.

    Without guidance, which would be led away from in each step.

    Args:
        pictures: N of (1, C, H, W) in [-1, 1].
        asked: what each shows.
        rounds: evaluations a step.

    Raises:
        InputError: a corruption whose noise is not normal, a grid that begins at pure noise, or a
            model that is told its own predictions.
    """
    _need_retraceable(scene)
    cond = told(scene.model, asked, scene.sampling)
    z = torch.cat([scene.encoded(each) for each in pictures])
    times = times_of(scene.model, scene.sampling).flip(0)
    last = z
    denoise = scene.model.denoiser
    if is_noise(denoise.corruption.schedule.level(times[-1])):
        # Where nothing is left of a picture every x comes of the same answer: no way leads there.
        raise InputError(
            f"The grid '{scene.sampling.grid}' begins at pure noise, to which no picture can be "
            "traced back; use one that begins a little below, such as --grid karras."
        )
    for step in ddim_inverse(denoise, z, times, cond, _no_noise, rounds=rounds):
        last = step.x
    return last


def _need_retraceable(scene: Scene) -> None:
    """Refuse a way down that depends on more than where it is.

    Raises:
        InputError: it does.
    """
    scene.refuse_reuse()
    if "x0" in scene.model.denoiser.network.wants:
        raise InputError(
            "This model is told its own last prediction, so its way from noise can't be traced "
            "back from the picture alone; use img2img, or a model without self-conditioning."
        )


def _no_noise(t: Tensor, u: Tensor) -> Tensor:
    raise AssertionError("DDIM draws no noise")


def retraced(x: Tensor) -> Drive:
    """DDIM from x (1 or B, C, H, W) at the walk's first time."""

    def drive(walk: Walk) -> Iterator[Step]:
        start = x.expand_as(walk.x)
        return ddim(walk.denoise, start, walk.times, walk.cond, walk.noise)

    return drive


def friendly(z: Tensor, asked: Sequence[Ask], scene: Scene, skip: int) -> Drive:
    """Edit-friendly inversion: the noises of an ancestral walk that ends at z, used again.

    Huberman-Spiegelglas et al. 2024, alg. 1: each x_t is z noised by itself, and the noise of each
    step is whatever leads from one to the next. Told the same, the walk ends at z to rounding; told
    otherwise, it keeps z's layout.

    Args:
        z: (1, C, H, W) in the codec's space.
        asked: what z shows, one Ask.
        scene: the scene, whose model is asked without guidance of z.
        skip: steps of the beginning that are left out, so that more of z is kept.
    """

    def drive(walk: Walk) -> Iterator[Step]:
        need_normal(walk.denoise, "friendly")
        return run(walk)

    def run(walk: Walk) -> Iterator[Step]:
        cond = told(scene.model, asked, scene.sampling)
        cond = {key: rows.expand(len(walk.x), *rows.shape[1:]) for key, rows in cond.items()}
        schedule = walk.denoise.corruption.schedule
        levels = schedule.level(walk.times)
        noised = []
        for i, t in enumerate(walk.times):
            drawn = walk.unit if i == 0 else walk.noise(t, t)
            level = Level(levels.alpha[i], levels.sigma[i])
            noised.append(level.alpha.to(z) * z + level.sigma.to(z) * drawn)
        x = noised[skip]
        for s, (upper, lower) in zip(
            stretches(walk.denoise, walk.times), pairwise(noised), strict=True
        ):
            if s.index < skip:
                continue
            kept = Level(s.b.alpha, ancestral(s.a, s.b, 1.0).kept)
            with torch.no_grad():
                own = scene.model.denoiser(upper, s.t, cond)
            rest = lower - move(upper, own, s.a, kept)
            p = walk.denoise(x, s.t, walk.cond)
            x = move(x, p, s.a, kept) + rest
            yield Step(s.index - skip, s.count - skip, s.u, x, p.x0)

    return drive


@EDITS.register("invert", pictures=1)
def invert(
    scene: Scene,
    *,
    method: Annotated[
        Literal["exact", "ddim", "friendly"],
        Field(description="exact: DDIM with fixed points; ddim: plain; friendly: keeps noises"),
    ] = "exact",
    source: Annotated[
        str | None, Field(description="what the picture shows: a label, or words")
    ] = None,
    rounds: Annotated[int, Field(ge=1, description="evaluations a step of exact")] = Retrace,
    keep: Annotated[
        Share, Field(description="friendly: share of the steps that are left out at the beginning")
    ] = 0.3,
) -> list[Edit]:
    """The noise that a picture comes from, and what it becomes when it is told something else.

    Without a label or prompt the picture itself comes back, which shows how well it was traced;
    with one, an edit of it. When to use it: to change what a picture shows and keep its layout.

    Raises:
        InputError: a grid that begins at pure noise, noise that is not normal, or a source that the
            model can't be told.
    """
    picture = scene.picture
    scene.refuse_sampler()
    shows = source_of(scene, source)
    asks = scene.asks() if scene.labels or scene.prompts else [shows] * scene.count
    before = {"original": picture}
    same = all(each == shows for each in asks)
    sampling = retracing(scene.sampling, guided=not same)
    truth = picture if same else None
    if method == "friendly":
        _need_retraceable(scene)
        skip = min(round(keep * scene.sampling.steps), scene.sampling.steps - 1)
        drive = friendly(scene.encoded(picture), [shows], scene, skip)
        ancestral = sampling.model_copy(update={"sampler": Spec(name="ddpm")})
        return [Edit(asks, drive=drive, before=before, sampling=ancestral, truth=truth)]
    x = noise_of(scene, [picture], [shows], rounds if method == "exact" else 1)
    level = scene.model.denoiser.corruption.schedule.level(times_of(scene.model, scene.sampling)[0])
    power = torch.hypot(level.alpha, level.sigma).to(x)
    seen = scene.model.codec.decode(x / power).float().cpu().clamp(-1, 1)
    return [
        Edit(
            asks,
            drive=retraced(x),
            before={**before, "its noise": seen},
            sampling=sampling,
            truth=truth,
        )
    ]


def retracing(sampling: SamplingConfig, *, guided: bool) -> SamplingConfig:
    """The sampling as pictures are traced and walked back: by DDIM and, where they are to come back
    as they were, without what would lead away from the way that they came, guidance and
    thresholds."""
    ddim = {"sampler": Spec(name="ddim")}
    off = {} if guided else {"guidance": 1.0, "guider": (), "threshold": Spec(name="none")}
    return sampling.model_copy(update={**ddim, **off})


def source_of(scene: Scene, source: str | None) -> Ask:
    """What a given picture shows, from a label or words; nothing in particular where not said."""
    if source is None:
        return Ask()
    if scene.model.conditioner.words is not None:
        return ask(scene.model, 1, prompt=source)[0]
    return ask(scene.model, 1, source)[0]


def slerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """From a to b (each (1 or B, C, H, W)) along the great circle, weight (B,) in [0, 1].

    Shoemake 1985: of normal noise it keeps the length, which a straight line would not. Lengths
    between those of a and b are passed evenly.
    """
    first, second = a.flatten(1), b.flatten(1)
    long, wide = first.norm(dim=1, keepdim=True), second.norm(dim=1, keepdim=True)
    cosine = ((first / long) * (second / wide)).sum(1, keepdim=True).clamp(-1, 1)
    angle = torch.acos(cosine)
    w = weight.to(first)[:, None]
    straight = angle.abs() < 1e-4
    sine = torch.sin(angle).clamp(min=1e-8)
    left = torch.where(straight, 1 - w, torch.sin((1 - w) * angle) / sine)
    right = torch.where(straight, w, torch.sin(w * angle) / sine)
    way = left * first / long + right * second / wide
    length = torch.lerp(long.expand_as(w), wide.expand_as(w), w)
    found: Tensor = (way * length).reshape(-1, *a.shape[1:])
    return found


@EDITS.register("interpolate", pictures=0, optional=2)
def interpolate(
    scene: Scene,
    *,
    source: Annotated[
        tuple[str, ...], Field(description="what the pictures show: labels, or words")
    ] = (),
    rounds: Rounds = Retrace,
) -> list[Edit]:
    """A path between two pictures, or between two draws of noise, `count` pictures long.

    Both pictures are traced to their noise, and the way between is spherical (Song et al. 2021,
    sec. 5.3). Without pictures the path leads from one sample to another. When to use it: to see
    what a model holds to lie between. Between two prompts: couette sample --toward.

    Raises:
        InputError: one picture, a grid that begins at pure noise, or not one source for each.
    """
    scene.need(0, 2)
    count = scene.count

    def weights(walk: Walk) -> Tensor:
        return walk.indices.to(walk.x.device) / max(count - 1, 1)

    if not scene.pictures:
        need_normal(scene.model.denoiser, "slerp")

        def between(walk: Walk) -> Iterator[Step]:
            shape = walk.x.shape[1:]
            ends = normal(scene.seed, torch.tensor([[0, 1], [1, 1]]), Stream.SAMPLING, shape)
            ends = sent(ends, walk.x.device) * walk.x.norm() / walk.unit.norm()
            start = slerp(ends[:1], ends[1:], weights(walk))
            return walk.down(start)

        return [Edit(scene.asks(), drive=between)]
    if len(source) not in (0, 1, 2):
        raise InputError(f"{len(source)} sources were given for two pictures; give one for each.")
    shows = [source_of(scene, source[i % len(source)] if source else None) for i in range(2)]
    scene.refuse_sampler()
    ends = noise_of(scene, scene.pictures, shows, rounds)

    def drive(walk: Walk) -> Iterator[Step]:
        start = slerp(ends[:1], ends[1:], weights(walk))
        return ddim(walk.denoise, start, walk.times, walk.cond, walk.noise)

    asks = scene.asks() if scene.labels or scene.prompts else [shows[0]] * count
    return [
        Edit(
            asks,
            drive=drive,
            before={"from": scene.pictures[0], "to": scene.pictures[1]},
            sampling=retracing(scene.sampling, guided=False),
        )
    ]


@EDITS.register("vary", pictures=1)
def vary(
    scene: Scene,
    *,
    amount: Annotated[
        Share, Field(description="how far to go from the picture's own noise to fresh noise")
    ] = 0.3,
    source: Annotated[
        str | None, Field(description="what the picture shows: a label, or words")
    ] = None,
    rounds: Rounds = Retrace,
) -> list[Edit]:
    """Variations on a picture: its noise, led part of the way to fresh noise.

    When to use it: for more of the same; img2img changes details first, this changes everything a
    little.

    Raises:
        InputError: as `invert`.
    """
    picture = scene.picture
    scene.refuse_sampler()
    shows = source_of(scene, source)
    x = noise_of(scene, [picture], [shows], rounds)

    def drive(walk: Walk) -> Iterator[Step]:
        weight = torch.full((len(walk.x),), amount)
        start = slerp(x.expand_as(walk.x), walk.x, weight)
        return ddim(walk.denoise, start, walk.times, walk.cond, walk.noise)

    told_more = bool(scene.labels or scene.prompts)
    return [
        Edit(
            scene.asks() if told_more else [shows] * scene.count,
            drive=drive,
            before={"original": picture},
            sampling=retracing(scene.sampling, guided=told_more),
        )
    ]
