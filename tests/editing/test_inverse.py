"""Inverse problems: operators against dense matrices, methods against Gaussians in closed form."""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor

from couette.config import Spec
from couette.contracts import Step
from couette.editing import OPERATORS, Linear, Scene, edits_of
from couette.editing.inverse import correction
from couette.errors import InputError, ShapeError
from couette.generate import steps
from couette.tensors import Stream, normal
from editing.exactly import SHAPE, bumps, covariance, gaussian, model_of, picture, scene

IMAGE = (3, 8, 8)
ALL = [
    "average",
    "average:factor=4",
    "gray",
    "holes",
    "holes:share=0.9",
    "box",
    "blur",
    "blur:sigma=2",
]


def operator(text: str, shape: tuple[int, int, int] = IMAGE) -> Any:
    return OPERATORS.build(Spec.model_validate(text), shape)


def matrix(a: Any, shape: tuple[int, int, int] = IMAGE) -> Tensor:
    """A as a dense matrix, float64."""
    size = shape[0] * shape[1] * shape[2]
    columns = a.apply(torch.eye(size, dtype=torch.float64).reshape(size, *shape))
    return columns.flatten(1).T  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ALL)
def test_operators_are_what_they_say(name: str) -> None:
    a = operator(name)
    dense = matrix(a)
    x, y = torch.randn(2, *IMAGE, dtype=torch.float64), None
    y = a.apply(torch.randn(2, *IMAGE, dtype=torch.float64))
    torch.testing.assert_close(a.apply(x).flatten(1), x.flatten(1) @ dense.T)
    torch.testing.assert_close(a.adjoint(y).flatten(1), y.flatten(1) @ dense)
    whole = 0.7 * dense @ dense.T + 0.3 * torch.eye(len(dense), dtype=torch.float64)
    torch.testing.assert_close(
        a.solve(y, 0.7, 0.3).flatten(1), torch.linalg.solve(whole, y.flatten(1).T).T
    )
    back = a.adjoint(a.solve(y, 1.0, 0.0)).flatten(1)
    pseudo = torch.linalg.pinv(dense, rtol=1e-6)
    torch.testing.assert_close(back, y.flatten(1) @ pseudo.T, atol=1e-6, rtol=1e-6)
    assert a.shown(y).shape == x.shape
    if name not in ("holes", "holes:share=0.9", "box"):
        torch.testing.assert_close(a.apply(torch.full_like(x, 0.4)), torch.full_like(y, 0.4))


@pytest.mark.parametrize("name", ["average", "gray", "blur", "holes"])
def test_any_linear_function_will_do(name: str) -> None:
    own = operator(name)
    any_ = Linear(own.apply, IMAGE)
    y = own.apply(torch.randn(2, *IMAGE, dtype=torch.float64))
    torch.testing.assert_close(any_.adjoint(y), own.adjoint(y))
    torch.testing.assert_close(
        any_.solve(y, 0.7, 0.3), own.solve(y, 0.7, 0.3), atol=1e-5, rtol=1e-5
    )


def test_what_is_given_back_explains_what_was_measured() -> None:
    for name in ALL:
        a = operator(name)
        x0, truth = torch.randn(2, 1, *IMAGE)
        y = a.apply(truth)
        moved = x0 + correction(a, y, x0, 0.25, 0.0)
        torch.testing.assert_close(a.apply(moved), y, atol=1e-5, rtol=1e-5)


def test_a_correction_is_the_mean_of_two_normals() -> None:
    """x0 ~ N(x̂, r²) and y = A·x0 + s·noise: the posterior mean, by the textbook."""
    a = operator("average")
    dense = matrix(a)
    x0, y = torch.randn(1, *IMAGE, dtype=torch.float64), a.apply(torch.randn(1, *IMAGE).double())
    r2, s = 0.3, 0.2
    gain = r2 * dense.T @ torch.linalg.inv(r2 * dense @ dense.T + s**2 * torch.eye(len(dense)))
    expected = x0.flatten() + gain @ (y.flatten() - dense @ x0.flatten())
    found = x0 + correction(a, y, x0, r2, s)
    torch.testing.assert_close(found.flatten(), expected)


# Methods


def walked(s: Scene, name: str, **settings: object) -> Tensor:
    (edit,) = edits_of(s, Spec(name=name, **settings))
    run = steps(s.model, edit.asked, sampling=s.sampling, editor=edit.editor, drive=edit.drive)
    last: deque[Step] = deque(run, maxlen=1)
    return last.pop().x


@pytest.mark.parametrize("method", ["ddnm", "pigdm", "dps"])
@pytest.mark.parametrize("schedule", ["edm", "linear", "flow"])
def test_samples_explain_the_measurement(method: str, schedule: str) -> None:
    model = model_of(bumps(schedule), schedule)
    s = scene(model, picture(0.4), count=8, steps=60)
    x = walked(s, "superres", method=method, degrade=True)
    a = operator("average", SHAPE)
    left = float((a.apply(x.double()) - a.apply(picture(0.4).double())).abs().mean())
    start = float(
        (a.apply(walked(s, "img2img", strength=(1.0,)).double()) - a.apply(picture(0.4).double()))
        .abs()
        .mean()
    )
    assert left < {"ddnm": 1e-5, "pigdm": 0.03, "dps": 0.06}[method]
    assert left < start / 3


def posterior(noise: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of x0 given its block means with noise, of the Gaussian."""
    dense = matrix(operator("average", SHAPE), SHAPE)
    y = dense @ picture(0.4).flatten().double()
    c = covariance() + 1e-6 * torch.eye(8, dtype=torch.float64)
    gain = c @ dense.T @ torch.linalg.inv(dense @ c @ dense.T + noise**2 * torch.eye(len(dense)))
    return 0.1 + gain @ (
        y - dense @ torch.full((8,), 0.1, dtype=torch.float64)
    ), c - gain @ dense @ c


@pytest.mark.parametrize("method", ["pigdm", "ddnm"])
def test_the_posterior_of_a_gaussian(method: str) -> None:
    """Without noise both reach its mean; their spread is off by what they assume of p(x0 | x_t):
    by a factor of at most 1.5 here, and the mean by a tenth of the spread before measuring."""
    s = scene(model_of(gaussian()), picture(0.4), count=1500, steps=50)
    x = walked(s, "superres", method=method, degrade=True).flatten(1).double()
    mean, cov = posterior(1e-4)
    assert float((x.mean(0) - mean).abs().max()) < 0.1 * float(covariance()[0, 0].sqrt())
    ratio = x.var(0) / cov.diagonal()
    assert bool((ratio > 1 / 1.5**2).all()) and bool((ratio < 1.5**2).all())


def test_pixels_that_are_independent_are_drawn_exactly() -> None:
    """Where p(x0 | x_t) is a normal with one variance in all directions ΠGDM is exact."""
    from couette.exact import Mixture
    from couette.registry import SCHEDULES

    # Standard deviation 0.5 is the one that r² is made for.
    world = Mixture(SCHEDULES.build(Spec(name="edm")), torch.zeros(1, *SHAPE), 0.5)
    s = scene(model_of(world), picture(0.4), count=2000, steps=150)
    x = walked(s, "restore", operator="box:share=0.5", method="pigdm", noise=0.3, degrade=True)
    flat = x.flatten(1).double()
    keep = operator("box:share=0.5", SHAPE).keep.flatten() > 0
    drawn_noise = normal(0, torch.zeros(1, 2, dtype=torch.int64), Stream.NOISE, SHAPE)
    y = (picture(0.4) + 0.3 * drawn_noise).flatten().double()
    gain = 0.25 / (0.25 + 0.09)
    truth = torch.zeros(8, dtype=torch.float64)
    truth[keep] = gain * y[keep]
    spread = torch.full((8,), 0.5, dtype=torch.float64)
    spread[keep] = (0.25 * (1 - gain)) ** 0.5
    torch.manual_seed(0)
    exact = truth + spread * torch.randn(2000, 8, dtype=torch.float64)
    p = [ks_2samp(flat[:, i].numpy(), exact[:, i].numpy()).pvalue for i in range(8)]
    assert min(p) > 1e-3


def test_measurements_in_the_models_own_range() -> None:
    """A model whose pictures lie in [0, 1] hears of the same measurement."""
    s = scene(model_of(bumps(), codec="unit"), picture(0.4), count=4, steps=30)
    for name, settings in (
        ("superres", {}),
        ("restore", {"operator": "holes:share=0.5"}),
        ("deblur", {"sigma": 0.5}),
    ):
        x = 2 * walked(s, name, degrade=True, **settings) - 1
        a = operator(
            settings.get("operator", "average" if name == "superres" else "blur:sigma=0.5"), SHAPE
        )
        torch.testing.assert_close(
            a.apply(x), a.apply(picture(0.4)).expand_as(a.apply(x)), atol=2e-5, rtol=0
        )


def test_given_measurements_are_taken_as_they_are() -> None:
    model = model_of(bumps())
    small = torch.tensor([[[[0.5, -0.2]]]])
    s = Scene(model, (picture(),), 2, sampling=model.config.sampling, raw=(small,))
    x = walked(s, "superres")
    torch.testing.assert_close(torch.nn.functional.avg_pool2d(x, 2), small.expand(2, 1, 1, 2))
    with pytest.raises(ShapeError, match=r"2 × 1 pixels"):
        walked(scene(model, picture()), "superres")
    with pytest.raises(ShapeError, match="divides both"):
        walked(scene(model, picture()), "superres", factor=4, degrade=True)
    with pytest.raises(ShapeError, match="nothing to colour"):
        walked(scene(model, picture()), "colorize", degrade=True)
    with pytest.raises(InputError, match="no operator"):
        walked(scene(model, picture()), "restore", operator="bogus", degrade=True)


def test_the_noise_that_is_added_is_the_noise_that_is_told() -> None:
    model = model_of(bumps())
    (edit,) = edits_of(
        scene(model, picture(0)),
        Spec(name="restore", operator="blur:sigma=0.3", noise=0.5, degrade=True),
    )
    gap = edit.before["measured"] - operator("blur:sigma=0.3", SHAPE).apply(picture(0))
    assert 0.2 < float(gap.std()) < 0.8
    assert edit.notes == ("Drawn with pigdm.",)
