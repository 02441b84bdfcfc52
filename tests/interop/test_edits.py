"""Edits of models in diffusers' layout, beside diffusers' own pipelines."""

from __future__ import annotations

import sys
from collections import deque
from pathlib import Path

import pytest
import torch
from torch import Tensor

import couette
from couette.config import Spec
from couette.contracts import Step
from couette.editing import Masked, Scene, edits_of, from_picture
from couette.generate import finished, sampling_of, steps
from couette.interop import load
from couette.model import Model
from interop import small_pipelines as small
from interop.small_pipelines import PROMPTS, diffusers
from interop.test_pictures import SEED, agree, as_ours, endless, fed, noise_of

WAY = {"sampler": "ddim", "grid": "strided", "steps": 5, "guidance": 7.5}


def picture() -> Tensor:
    return torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("strength", [0.4, 0.8, 1.0])
def test_image_to_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strength: float) -> None:
    pipeline = small.stable(tmp_path)
    model = load(tmp_path)
    z = model.codec.encode(picture())
    if strength == 1:  # theirs begins with a trace of the picture even then
        scene = scene_of(model)
        ours = walked(scene, from_noised(scene, z))
    else:
        given = {**WAY, "count": 2, "seed": SEED, "prompt": PROMPTS}
        (row,) = couette.edit(model, "img2img", picture(), strength=(strength,), **given)
        ours = row.pictures
    theirs = diffusers.StableDiffusionImg2ImgPipeline.from_pipe(pipeline)
    fed(monkeypatch, endless(noise_of(model)), sys.modules[type(theirs).__module__])
    drawn = theirs(
        PROMPTS,
        image=z.expand(2, *z.shape[1:]),
        strength=strength,
        num_inference_steps=5,
        guidance_scale=7.5,
        output_type="np",
    )
    agree(ours, as_ours(drawn.images))


def test_inpainting_by_replacement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of four channels: what is known is put in the place of what is drawn."""
    pipeline = small.stable(tmp_path)
    model = load(tmp_path)
    z = model.codec.encode(picture())
    mask = torch.zeros(1, 1, 16, 16)
    mask[..., 4:12, 8:] = 1
    hole = mask[..., :: 16 // z.shape[-2], :: 16 // z.shape[-1]]
    scene = scene_of(model)
    run = steps(
        model,
        scene.asks(),
        seed=SEED,
        sampling=scene.sampling,
        editor=lambda denoise: Masked(denoise, z, hole),
        drive=from_picture(z, 4),
    )
    ours = finished(model, ended(run))
    theirs = diffusers.StableDiffusionInpaintPipeline.from_pipe(pipeline)
    fed(monkeypatch, endless(noise_of(model)), sys.modules[type(theirs).__module__])
    monkeypatch.setattr(type(theirs), "_encode_vae_image", lambda self, image, generator: z)
    drawn = theirs(
        PROMPTS,
        image=((picture() + 1) / 2).expand(2, -1, -1, -1),
        mask_image=mask.expand(2, -1, -1, -1),
        height=16,
        width=16,
        strength=0.8,
        num_inference_steps=5,
        guidance_scale=7.5,
        output_type="np",
    )
    agree(ours, as_ours(drawn.images))


def scene_of(model: Model) -> Scene:
    return Scene(
        model,
        (picture(),),
        2,
        prompts=tuple(PROMPTS),
        sampling=sampling_of(model, **WAY),
        seed=SEED,
    )


def from_noised(scene: Scene, z: Tensor):  # type: ignore[no-untyped-def]
    return lambda walk: walk.down(walk.noised(z, walk.times[0]))


def walked(scene: Scene, drive) -> Tensor:  # type: ignore[no-untyped-def]
    run = steps(scene.model, scene.asks(), seed=SEED, sampling=scene.sampling, drive=drive)
    return finished(scene.model, ended(run))


def ended(run) -> Tensor:  # type: ignore[no-untyped-def]
    last: deque[Step] = deque(run, maxlen=1)
    return last.pop().x


def test_an_anagram_of_a_pixel_model(tmp_path: Path) -> None:
    """DeepFloyd's first stage: the mean of both views' answers, by hand."""
    small.deepfloyd(tmp_path)
    model = load(tmp_path)
    scene = Scene(
        model, (), 1, prompts=tuple(PROMPTS), sampling=sampling_of(model, steps=3, guidance=1.0)
    )
    (edit,) = edits_of(scene, Spec(name="anagram", view=("identity", "flip")))
    assert edit.editor is not None
    x, t = torch.randn(1, *model.shape), torch.tensor(0.5, dtype=torch.float64)
    cond = model.conditioner(scene.each(1))
    both = [model.conditioner(scene.each(2)[i : i + 1]) for i in range(2)]
    p = edit.editor(model.denoiser)(x, t, cond)
    first = model.denoiser(x, t, both[0]).x0
    second = model.denoiser(x.flip(-2), t, both[1]).x0.flip(-2)
    torch.testing.assert_close(p.x0, (first + second) / 2, atol=1e-5, rtol=1e-5)
    assert p.mix is not None
