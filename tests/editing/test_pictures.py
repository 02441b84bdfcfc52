"""Edits that begin with a picture: image to image, inpainting, inversion."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import pytest
import torch
from PIL import Image
from scipy.stats import ks_2samp
from torch import Tensor

from couette.config import Spec
from couette.contracts import Ask, Step
from couette.editing import (
    Edit,
    Masked,
    Scene,
    drawn,
    edits_of,
    from_picture,
    noise_of,
    repaint,
    slerp,
)
from couette.editing.inpainting import noised_back
from couette.errors import DataError, InputError
from couette.generate import Walk, pictures, steps, times_of
from couette.samplers import SAMPLERS
from couette.tensors import normal
from editing.exactly import SHAPE, bumps, covariance, gaussian, model_of, picture, scene

HOLE = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1]]).reshape(1, 1, 2, 4)


def made(s: Scene, name: str, **settings: object) -> list[Tensor]:
    return [drawn(s, edit) for edit in edits_of(s, Spec(name=name, **settings))]


# Image to image


@pytest.mark.parametrize("schedule", ["edm", "linear", "flow"])
def test_strength_0_keeps_the_picture_and_1_is_sampling(schedule: str) -> None:
    model = model_of(bumps(schedule), schedule)
    s = scene(model, picture(), count=3)
    kept, new = made(s, "img2img", strength=(0.0, 1.0))
    assert torch.equal(kept, picture().expand(3, *SHAPE))
    assert torch.equal(new, torch.cat(list(pictures(model, [Ask()] * 3))))


def test_more_strength_leads_farther() -> None:
    s = scene(model_of(bumps()), picture(), count=32)
    far = [
        float((x - picture()).abs().mean())
        for x in made(s, "img2img", strength=(0.1, 0.3, 0.6, 0.9))
    ]
    assert far == sorted(far)


def test_starts_and_strengths_are_steps_of_the_grid() -> None:
    s = scene(model_of(bumps()), picture(), count=2, steps=10)
    (one,) = made(s, "img2img", start=(4,))
    (other,) = made(s, "img2img", strength=(0.6,))
    assert torch.equal(one, other)
    for settings, said in (
        ({"start": (11,)}, "no start 11"),
        ({"start": (1,), "strength": (0.5,)}, "give one"),
    ):
        with pytest.raises(InputError, match=said):
            made(s, "img2img", **settings)


def test_a_picture_begins_noised_as_the_forward_process_does() -> None:
    """Many starts at one step: their mean and spread are alpha·z and sigma."""
    model = model_of(bumps("linear"), "linear")
    s = scene(model, picture(), count=2000)
    seen: list[Tensor] = []

    def watch(walk: Walk):  # type: ignore[no-untyped-def]
        t = walk.times[10]
        seen.append(walk.noised(picture(), t))
        return from_picture(picture(), 10)(walk)

    deque(steps(model, [Ask()] * 2000, drive=watch), maxlen=0)
    level = model.denoiser.corruption.schedule.level(times_of(model, s.sampling)[10])
    torch.testing.assert_close(
        seen[0].mean(0), (level.alpha * picture()[0]).float(), atol=0.08, rtol=0
    )
    assert abs(float(seen[0].std(0).mean() / level.sigma) - 1) < 0.02


# Inpainting


@pytest.mark.parametrize("method", ["repaint", "replace"])
@pytest.mark.parametrize("soft", [0.0, 0.6])
def test_what_is_kept_is_kept_to_the_bit(method: str, soft: float) -> None:
    s = scene(model_of(bumps()), picture(), count=5)
    (new,) = made(s, "inpaint", box=(2, 0, 4, 2), method=method, soft=soft)
    kept = (new == picture()).all(0)[0]
    assert bool(kept[:, :2].all()) == (soft == 0)  # a soft edge reaches everywhere here
    assert not bool(kept[:, 2:].any())


@pytest.mark.parametrize("sampler", ["ddim", "heun", "dpmpp-2m", "ddpm", "euler-ancestral"])
def test_what_is_known_moves_along_its_own_noising(sampler: str) -> None:
    """In the known part x is alpha·known + sigma·(some normal noise) at every step."""
    model = model_of(bumps("linear"), "linear")
    s = scene(model, picture(), count=400, sampler=sampler, steps=12)
    (edit,) = edits_of(s, Spec(name="inpaint", box=(2, 0, 4, 2), method="replace"))
    run = steps(model, edit.asked, sampling=s.sampling, editor=edit.editor, drive=edit.drive)
    for step in run:
        level = model.denoiser.corruption.schedule.level(step.t)
        if float(level.sigma) < 1e-3:
            continue
        rest = (step.x - level.alpha * picture())[..., :2] / level.sigma
        assert abs(float(rest.mean())) < 0.12
        assert abs(float(rest.std()) - 1) < 0.12


def conditional(known: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the four pixels in the hole, given those around it."""
    flat = HOLE.flatten() > 0
    c = covariance()
    gain = c[flat][:, ~flat] @ torch.linalg.inv(c[~flat][:, ~flat])
    mean = 0.1 + gain @ (known.flatten()[~flat].double() - 0.1)
    return mean, c[flat][:, flat] - gain @ c[~flat][:, flat]


def in_the_hole(x: Tensor) -> Tensor:
    return x.flatten(1)[:, HOLE.flatten() > 0].double()


def unclamped(s: Scene, edit: Edit) -> Tensor:
    """What the sampler ends with: clamping would change a Gaussian."""
    last: deque[Step] = deque(
        steps(
            s.model,
            edit.asked,
            sampling=edit.sampling or s.sampling,
            editor=edit.editor,
            drive=edit.drive,
        ),
        maxlen=1,
    )
    return last.pop().x


def test_repaint_reaches_the_conditional_distribution() -> None:
    """Of a Gaussian it is known in closed form; plain replacement is known to miss it."""
    model = model_of(gaussian())
    known = picture(0.5, seed=3)
    s = scene(model, known, count=1000, steps=64, sampler="euler-ancestral")
    mean, cov = conditional(known)
    truth = torch.distributions.MultivariateNormal(mean, cov)
    torch.manual_seed(0)
    exact = truth.sample((1000,))
    off, p = {}, {}
    for name, settings in {
        "repaint": {"method": "repaint", "jump": 2, "resample": 10},
        "replace": {"method": "replace"},
    }.items():
        (edit,) = edits_of(s, Spec(name="inpaint", box=(2, 0, 4, 2), **settings))
        found = in_the_hole(unclamped(s, edit))
        off[name] = float((found.mean(0) - mean).abs().max())
        p[name] = min(ks_2samp(found[:, i].numpy(), exact[:, i].numpy()).pvalue for i in range(4))
    assert off["repaint"] < 0.04
    assert off["replace"] > 2 * off["repaint"]
    assert p["repaint"] > 1e-4 > p["replace"]


def test_noising_back_is_the_forward_process() -> None:
    schedule = model_of(bumps("linear"), "linear").denoiser.corruption.schedule
    b, a = schedule.level(torch.tensor(0.3)), schedule.level(torch.tensor(0.7))
    keys = torch.stack((torch.arange(20_000), torch.zeros(20_000, dtype=torch.int64)), 1)
    z = 0.7
    x = b.alpha * z + b.sigma * normal(0, keys, 0, (1,))
    up = noised_back(x, normal(0, keys, 1, (1,)), b, a)
    assert abs(float(up.mean() - a.alpha * z)) < 0.03
    assert abs(float(up.std() / a.sigma) - 1) < 0.02


def test_repaint_walks_each_stretch_as_often_as_asked() -> None:
    s = scene(model_of(bumps()), picture(), steps=10)
    (edit,) = edits_of(s, Spec(name="inpaint", box=(2, 0, 4, 2), jump=3, resample=4))
    walked = list(
        steps(s.model, edit.asked, sampling=s.sampling, editor=edit.editor, drive=edit.drive)
    )
    assert [step.index for step in walked] == list(range(40))
    assert {step.count for step in walked} == {40}


def test_masks_from_files_boxes_and_colours(tmp_path: Path) -> None:
    Image.new("L", (4, 2), 0).save(tmp_path / "black.png")
    half = Image.new("L", (4, 2), 0)
    half.paste(255, (2, 0, 4, 2))
    half.save(tmp_path / "half.png")
    Image.new("L", (4, 2), 255).save(tmp_path / "white.png")
    given = torch.full((1, *SHAPE), -1.0)
    given[..., 2:] = 1
    s = scene(model_of(bumps()), given, count=2)
    same = [
        made(s, "inpaint", **settings)[0]
        for settings in (
            {"mask": str(tmp_path / "half.png")},
            {"box": (2, 0, 4, 2)},
            {"color": "white"},
        )
    ]
    assert torch.equal(same[0], same[1]) and torch.equal(same[1], same[2])
    for settings, said in (
        ({"mask": str(tmp_path / "black.png")}, "black everywhere"),
        ({"mask": str(tmp_path / "white.png")}, "white everywhere"),
        ({"color": "red"}, "black everywhere"),
        ({"color": "nocolour"}, "no colour"),
        ({"box": (2, 0, 2, 2)}, "does not lie within"),
        ({"box": (0, 0, 9, 2)}, "does not lie within"),
        ({}, "one of --mask"),
        ({"box": (0, 0, 1, 1), "color": "red"}, "one of --mask"),
    ):
        with pytest.raises(InputError, match=said):
            made(s, "inpaint", **settings)
    with pytest.raises(DataError, match=r"absent\.png"):
        made(s, "inpaint", mask=str(tmp_path / "absent.png"))


def test_repaint_needs_normal_noise() -> None:
    from couette.contracts import Corruption

    class Uniform:
        corruption = Corruption(
            model_of(bumps("flow"), "flow").denoiser.corruption.schedule, "uniform"
        )

    walk = Walk(None, Uniform(), None, *[torch.zeros(1)] * 3, {}, None, torch.zeros(1))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="normal noise"):
        repaint(picture(), HOLE, 1, 1)(walk)


def test_outpainting_keeps_the_small_picture() -> None:
    s = scene(model_of(bumps()), picture(), count=2)
    (new,) = made(s, "outpaint", left=1, right=1)
    small = torch.nn.functional.interpolate(picture(), (1, 2), mode="bilinear", antialias=True)
    assert torch.equal(new[..., :1, 1:3], small.expand(2, 1, 1, 2))  # in its own shape
    for settings, said in (({}, "how many pixels"), ({"left": 3, "right": 1}, "leave nothing")):
        with pytest.raises(InputError, match=said):
            made(s, "outpaint", **settings)


def test_masked_holds_base_too() -> None:
    from couette.contracts import Cond, Corruption, Prediction

    class Plain:
        corruption: Corruption = model_of(bumps()).denoiser.corruption

        def __call__(self, x: Tensor, t: Tensor, cond: Cond) -> Prediction:
            return Prediction(x, base=2 * x)

    x = torch.randn(1, *SHAPE)
    p = Masked(Plain(), picture(), HOLE)(x, torch.tensor(0.5), {})
    expected = torch.where(HOLE == 1, 2 * x, picture())
    assert p.base is not None
    torch.testing.assert_close(p.base, expected)


# Inversion


@pytest.mark.parametrize("schedule", ["edm", "linear", "cosine"])
def test_an_exact_inversion_leads_back(schedule: str) -> None:
    model = model_of(bumps(schedule), schedule)
    grid = {"grid": "karras"} if schedule == "edm" else {}
    s = scene(model, picture(), steps=30, **grid)
    exact, plain = (
        float((made(s, "invert", method=method, **more)[0] - picture()).abs().max())
        for method, more in (("exact", {"rounds": 30}), ("ddim", {}))
    )
    assert exact < 1e-3 < plain


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_a_friendly_inversion_leads_back_and_edits(guidance: float) -> None:
    model = model_of(bumps("linear"), "linear")
    s = scene(model, picture(-0.3), steps=20, guidance=guidance)
    same = made(s, "invert", method="friendly", keep=0.2)[0]
    torch.testing.assert_close(same, picture(-0.3).expand_as(same), atol=2e-5, rtol=0)
    other = scene(model, picture(-0.3), steps=20, labels=("1",), guidance=guidance)
    (edited,) = made(other, "invert", method="friendly", source="0", keep=0.0)
    toward = bumps().get_buffer("means")[1].float().reshape(SHAPE) - picture(-0.3)
    assert float(((edited - picture(-0.3)) * toward).sum()) > 0


def test_noise_of_a_gaussian_is_known() -> None:
    """In many steps the inversion of x0 is the quantile map of the probability-flow ODE."""
    model = model_of(gaussian())
    s = scene(model, picture(), steps=400)
    x = noise_of(s, [picture()], [Ask()], 8)
    values, directions = torch.linalg.eigh(covariance() + 1e-6 * torch.eye(8, dtype=torch.float64))
    level = model.denoiser.corruption.schedule.level(times_of(model, s.sampling)[0])
    grown = ((level.alpha.square() * values + level.sigma.square()) / values).sqrt()
    inside = directions.T @ (picture().flatten().double() - 0.1)
    expected = level.alpha * 0.1 + directions @ (grown * inside)
    assert float((x.flatten().double() - expected).abs().max() / level.sigma) < 0.05


def test_pure_noise_is_no_place_to_come_from() -> None:
    model = model_of(bumps("flow"), "flow")
    with pytest.raises(InputError, match="pure noise"):
        made(scene(model, picture(), grid="uniform"), "invert")


def test_slerp_keeps_lengths_and_ends() -> None:
    a, b = torch.randn(2, 1, 3, 4, 4)
    weight = torch.linspace(0, 1, 5)
    way = slerp(a, b, weight)
    torch.testing.assert_close(way[:1], a)
    torch.testing.assert_close(way[-1:], b)
    lengths = way.flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, torch.lerp(a.norm(), b.norm(), weight))
    torch.testing.assert_close(slerp(a, a, weight), a.expand(5, 3, 4, 4), atol=1e-4, rtol=1e-4)


def test_a_path_leads_from_one_picture_to_the_other() -> None:
    model = model_of(bumps())
    s = scene(model, picture(-0.2), picture(0.2, seed=1), count=5, steps=30)
    (way,) = made(s, "interpolate", rounds=30)
    torch.testing.assert_close(way[:1], picture(-0.2), atol=2e-3, rtol=0)
    torch.testing.assert_close(way[-1:], picture(0.2, seed=1), atol=2e-3, rtol=0)
    (edit,) = edits_of(s, Spec(name="interpolate", rounds=30))
    torch.testing.assert_close(drawn(s, edit, batch=2), way, atol=1e-5, rtol=0)
    with pytest.raises(InputError, match="no or two pictures, and 1"):
        made(scene(model, picture()), "interpolate")


def test_variations_begin_at_the_picture() -> None:
    s = scene(model_of(bumps()), picture(), count=3, steps=30)
    (near,) = made(s, "vary", amount=0.0, rounds=30)
    torch.testing.assert_close(near, picture().expand(3, *SHAPE), atol=2e-3, rtol=0)
    (far,) = made(s, "vary", amount=0.5)
    assert float((far - picture()).abs().mean()) > 0.02


def test_every_sampler_that_falls_can_drive_image_to_image() -> None:
    model = model_of(bumps())
    for name in ("dpmpp-2m", "unipc", "restart", "dopri5", "edm"):
        assert not SAMPLERS.trait(name, "inverse")
        (x,) = made(scene(model, picture(), count=2, sampler=name, steps=8), "img2img")
        assert bool(x.isfinite().all())
