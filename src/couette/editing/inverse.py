"""Inverse problems: pictures that explain a measurement y = A·x0 + noise, drawn from a model.

Three ways to tell a denoiser of y. With r² the variance that x0 still has at a noise level:

    DDNM   x0 + r²Aᵀ(r²AAᵀ + s²)⁻¹(y − A·x0)                        no gradient (Wang et al. 2023)
    ΠGDM   x0 + sigma²/alpha·Jᵀ·Aᵀ(r²AAᵀ + s²)⁻¹(y − A·x0)          J = ∂x0/∂x_t (Song et al. 2023)
    DPS    a step of the sampler, then − ζ·∇‖y − A·x0‖               (Chung et al. 2023)

The first two are denoisers; the third drives the walk. All take p(x0 | x_t) for a normal
distribution about x0: DDNM and ΠGDM of the same variance in all directions, DPS of none. So none
draws exactly from p(x0 | y), unless that is so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from couette.config import Spec
from couette.contracts import Codec, Cond, Corruption, Denoise, Level, Prediction, Step
from couette.editing.operators import Kept, Operator
from couette.editing.registry import EDITS, OPERATORS, Edit, Scene
from couette.errors import InputError, NotFinite, ShapeError
from couette.generate import Drive, Walk
from couette.samplers.moves import need_normal, stretches
from couette.samplers.noisy import ancestral, renew
from couette.tensors import Stream, expand, normal, sent

Method = Literal["auto", "ddnm", "pigdm", "dps"]
Noise = Annotated[
    float, Field(ge=0, description="standard deviation of the measurement's noise, of [-1, 1]")
]

_HOLES = Spec(name="holes")

DATA = 0.5
"""The standard deviation that pictures in [-1, 1] are taken to have."""

STRENGTH = 10.0
"""Of DPS. In a thousand steps, of 12,288 measured values, 9 is the paper's ζ = 1."""


def variance(level: Level, data: float = DATA) -> Tensor:
    """r²: what x0 still varies by at a level, were it normal with the deviation s = `data`:
    s²σ²/(s²α² + σ²), as in Song et al. 2023, sec. 3.3."""
    noise = level.sigma.square()
    return data**2 * noise / (data**2 * level.alpha.square() + noise)


class Projected:
    """DDNM: x0 with what was measured put in its place, a denoiser.

    Without noise, A·x0 = y afterwards (Wang et al. 2023, eq. 13); with noise, x0 is the mean of
    what the model says, to the variance r², and what was measured.

    Args:
        denoise: the denoiser.
        operator: A, on what `codec` decodes to.
        y: (1 or B, …).
        noise: the standard deviation of y's noise.
        data: that of pictures.
        codec: between x0 and what is measured, where these differ: an autoencoder.
    """

    def __init__(
        self,
        denoise: Denoise,
        operator: Operator,
        y: Tensor,
        noise: float = 0.0,
        data: float = DATA,
        codec: Codec | None = None,
    ) -> None:
        self.denoise, self.operator, self.y, self.noise = denoise, operator, y, noise
        self.data, self.codec = data, codec

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        p = self.denoise(x, t, cond)
        left = float(variance(self.corruption.schedule.level(t), self.data))
        base = None if p.base is None else self._explained(p.base, left)
        return p._replace(x0=self._explained(p.x0, left), base=base)

    def _explained(self, x0: Tensor, left: float) -> Tensor:
        picture = x0 if self.codec is None else self.codec.decode(x0)
        picture = picture + correction(self.operator, self.y, picture, left, self.noise)
        return picture if self.codec is None else self.codec.encode(picture)


def correction(operator: Operator, y: Tensor, x0: Tensor, left: float, noise: float) -> Tensor:
    """r²Aᵀ(r²AAᵀ + s²)⁻¹(y − A·x0): how a normal x0 of variance r² moves when it hears of y."""
    if not noise:
        return operator.adjoint(operator.solve(y - operator.apply(x0), 1.0, 0.0))
    found = operator.solve(y - operator.apply(x0), left, noise**2)
    return left * operator.adjoint(found)


class Guided:
    """ΠGDM: x0 moved along the gradient of log p(y | x_t): a denoiser.

    E[x0 | x_t, y] = E[x0 | x_t] + sigma²/alpha·∇ log p(y | x_t), with p(y | x_t) = N(A·x0, r²AAᵀ +
    s²) (Song et al. 2023, eq. 7). It costs a backward pass at each evaluation.

    Args:
        denoise: the denoiser; gradients flow through it.
        operator, y, noise, data: as of `Projected`.
    """

    def __init__(
        self,
        denoise: Denoise,
        operator: Operator,
        y: Tensor,
        noise: float = 0.0,
        data: float = DATA,
    ) -> None:
        self.denoise, self.operator, self.y, self.noise = denoise, operator, y, noise
        self.data = data

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
        level = self.corruption.schedule.level(t)
        if not bool((level.alpha > 0).all()):
            return self.denoise(x, t, cond)
        left = float(variance(level, self.data))
        with torch.enable_grad():
            given = x.detach().requires_grad_()
            p = self.denoise(given, t, cond)
            gap = self.y - self.operator.apply(p.x0.detach())
            pull = self.operator.adjoint(self.operator.solve(gap, left, self.noise**2))
            (slope,) = torch.autograd.grad(p.x0, given, pull.to(p.x0))
        far = expand(level.sigma.square() / level.alpha, x)
        p = cut(p)
        base = None if p.base is None else p.base + far * slope
        return p._replace(x0=p.x0 + far * slope, base=base)


def dps(
    operator: Operator,
    y: Tensor,
    strength: float,
    *,
    data: float = DATA,
    codec: Codec | None = None,
) -> Drive:
    """DPS: after each ancestral step one down ∇‖y − A·x0‖ (Chung et al. 2023, alg. 1).

    The paper's ζ is for a thousand steps of a variance-preserving chain and large pictures. Here it
    is `strength`·√m/N for m measured values and N steps, so that all steps together lead as far and
    any picture is left with the same share of a residual; in x over √(alpha² + sigma²), which is
    such a chain's x on any schedule.

    Args:
        operator, y: as of `Projected`.
        strength: see `STRENGTH`.
        data: standard deviation of pictures, which the steps are in proportion to.
        codec: between x0 and what is measured: gradients flow through it.

    Raises:
        InputError: a corruption whose noise is not normal.
    """

    def drive(walk: Walk) -> Iterator[Step]:
        need_normal(walk.denoise, "dps")
        return run(walk)

    def run(walk: Walk) -> Iterator[Step]:
        x = walk.x
        told = int(seen(operator, torch.ones_like(y[:1])).count_nonzero())
        far = strength * math.sqrt(told) / (len(walk.times) - 1) * data / DATA
        for s in stretches(walk.denoise, walk.times):
            p, slope = _sloped(walk, x, s.t, operator, y, codec)
            x = renew(x, p, s, ancestral(s.a, s.b, 1.0), walk.noise)
            power = s.a.alpha.square() + s.a.sigma.square()
            # Into the scale of the level that the step has come to.
            scale = ((s.b.alpha.square() + s.b.sigma.square()) * power).sqrt()
            x = x - expand(far * scale, x) * slope
            yield Step(s.index, s.count, s.u, x, p.x0)

    return drive


def _sloped(
    walk: Walk, x: Tensor, t: Tensor, operator: Operator, y: Tensor, codec: Codec | None
) -> tuple[Prediction, Tensor]:
    """The prediction for x, and ∇‖y − A·x0‖ of each picture by itself."""
    with torch.enable_grad():
        given = x.detach().requires_grad_()
        p = walk.flowing(given, t, walk.cond)
        shown = p.x0 if codec is None else codec.decode(p.x0)
        gaps = (y - operator.apply(shown)).flatten(1).norm(dim=1)
        (slope,) = torch.autograd.grad(gaps.sum(), given)
    if not bool(p.x0.isfinite().all()):
        raise NotFinite(
            f"What the model predicts at t = {float(t):.4g} is not finite; give dps a smaller "
            "--strength, or draw in more steps."
        )
    return cut(p), slope


def cut(p: Prediction) -> Prediction:
    """A prediction that no gradients flow through."""
    base, mix = (None if part is None else part.detach() for part in p[1:])
    return Prediction(p.x0.detach(), base, mix)


def restored(
    scene: Scene,
    operator: Spec,
    *,
    method: Method,
    noise: float,
    degrade: bool,
    strength: float,
) -> list[Edit]:
    """The edit that draws pictures of which one was measured by the operator.

    Raises:
        InputError: ΠGDM on latents, or a strength without DPS.
        ShapeError: a measurement of another size than the operator's.
    """
    if method == "auto":
        method = "ddnm" if noise == 0 or scene.latent else "pigdm"
    if strength != STRENGTH and method != "dps":
        raise InputError(f"A strength is that of dps, and {method} has none; leave out --strength.")
    if method == "dps":
        scene.refuse_sampler()
    if method in ("dps", "pigdm"):
        scene.refuse_reuse()
    if method == "pigdm" and scene.latent:
        raise InputError(
            "ΠGDM needs a linear measurement of what the model works on, and an autoencoder's "
            "decoder is not linear; use --method ddnm or dps."
        )
    config = scene.model.config
    through = scene.model.codec if scene.latent else None
    found: Operator = OPERATORS.build(operator, (config.channels, *scene.size))
    truth = scene.picture if degrade else None
    clean = found.apply(truth if truth is not None else torch.zeros_like(scene.pictures[0]))
    y = clean if degrade else measured(scene, found, clean)
    if degrade and noise:
        keys = torch.zeros(1, 2, dtype=torch.int64)
        y = seen(found, y + noise * normal(scene.seed, keys, Stream.NOISE, y.shape[1:]))
    inside, spread, data = y, noise, DATA
    if through is None:
        # An affine codec maps a measurement as it maps a picture: A keeps constants.
        ends = scene.model.codec.encode(torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1)).flatten()
        middle, scale = float(ends[0]), float(ends[1] - ends[0])
        blank = found.apply(torch.full((1, config.channels, *scene.size), middle))
        inside, spread, data = y * scale + blank, noise * scale, DATA * scale
    inside = sent(inside, scene.device)
    shown = {"measured": found.shown(y).clamp(-1, 1)}
    edit = Edit(
        scene.asks(),
        before=({"original": truth} if truth is not None else {}) | shown,
        truth=truth,
        notes=(f"Drawn with {method}.",),
    )
    if method == "dps":
        drive = dps(found, inside, strength, data=data, codec=through)
        return [replace(edit, drive=drive)]
    if method == "pigdm":
        return [replace(edit, editor=lambda denoise: Guided(denoise, found, inside, spread, data))]
    return [replace(edit, editor=lambda d: Projected(d, found, inside, spread, data, through))]


def measured(scene: Scene, operator: Operator, like: Tensor) -> Tensor:
    """The given picture as a measurement: as it is where it has the measurement's size.

    Raises:
        ShapeError: it has not.
    """
    raw = scene.raw[0]
    if raw.shape[1] != like.shape[1] and like.shape[1] == 1:
        raw = raw.mean(1, keepdim=True)
    if raw.shape[1] != like.shape[1]:
        raw = raw.expand(-1, like.shape[1], -1, -1)
    if raw.shape[-2:] != like.shape[-2:]:
        height, width = like.shape[-2:]
        raise ShapeError(
            f"A measurement of {width} × {height} pixels is needed, and the picture has "
            f"{raw.shape[-1]} × {raw.shape[-2]}; give one of that size, or --degrade to have it "
            "measured first."
        )
    return seen(operator, raw)


def seen(operator: Operator, y: Tensor) -> Tensor:
    """y, without what stands where nothing is measured."""
    return operator.apply(y) if isinstance(operator, Kept) else y


Degrade = Annotated[bool, Field(description="measure the given picture first, and compare with it")]
How = Annotated[
    Method, Field(description="ddnm, pigdm or dps; auto: pigdm where there is noise, else ddnm")
]
Strength = Annotated[float, Field(gt=0, description="of dps")]


@EDITS.register("superres", pictures=1, measures=True)
def superres(
    scene: Scene,
    *,
    factor: Annotated[int, Field(ge=2, description="how much larger, each way")] = 2,
    method: How = "auto",
    noise: Noise = 0.0,
    strength: Strength = STRENGTH,
    degrade: Degrade = False,
) -> list[Edit]:
    """A small picture at the model's size: pictures whose blocks average to its pixels.

    See `restore` for the methods. When to use it: to enlarge pictures of the model's kind.
    """
    spec = Spec(name="average", factor=factor)
    return restored(scene, spec, method=method, noise=noise, degrade=degrade, strength=strength)


@EDITS.register("deblur", pictures=1, measures=True)
def deblur(
    scene: Scene,
    *,
    sigma: Annotated[float, Field(gt=0, description="of the Gaussian blur, in pixels")] = 1.0,
    method: How = "auto",
    noise: Noise = 0.0,
    strength: Strength = STRENGTH,
    degrade: Degrade = False,
) -> list[Edit]:
    """A blurred picture made sharp: pictures that blur to it.

    See `restore` for the methods. When to use it: where the blur is known and about Gaussian.
    """
    spec = Spec(name="blur", sigma=sigma)
    return restored(scene, spec, method=method, noise=noise, degrade=degrade, strength=strength)


@EDITS.register("colorize", pictures=1, measures=True)
def colorize(
    scene: Scene,
    *,
    method: How = "auto",
    noise: Noise = 0.0,
    strength: Strength = STRENGTH,
    degrade: Degrade = False,
) -> list[Edit]:
    """A gray picture in colour: pictures whose channels average to it.

    See `restore` for the methods. When to use it: to colour pictures of the model's kind.
    """
    return restored(
        scene,
        Spec(name="gray"),
        method=method,
        noise=noise,
        degrade=degrade,
        strength=strength,
    )


@EDITS.register("restore", pictures=1, measures=True)
def restore(
    scene: Scene,
    *,
    operator: Annotated[
        Spec, Field(description="what was measured: holes:share=0.9, box, average, blur, gray")
    ] = _HOLES,
    method: How = "auto",
    noise: Noise = 0.0,
    strength: Strength = STRENGTH,
    degrade: Degrade = False,
) -> list[Edit]:
    """Any inverse problem: pictures of which a linear operator measures what was measured.

    DDNM puts what was measured in the place of what is predicted of it (Wang et al. 2023); ΠGDM
    follows the gradient of its likelihood (Song et al. 2023), and so does DPS, step by step (Chung
    et al. 2023). With --degrade the picture is measured first. When to use it: for holes, and for
    operators beside those of `superres`, `deblur` and `colorize`.
    """
    return restored(scene, operator, method=method, noise=noise, degrade=degrade, strength=strength)
