"""The same picture as diffusers' own pipeline draws, from the same noise, for each family."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from couette import generate
from couette.config import SamplingConfig
from couette.contracts import Ask
from couette.generate import KeyedNoise
from couette.interop import load
from couette.model import Model
from couette.runtime import Runtime
from couette.tensors import Stream, normal
from interop import small_pipelines as small
from interop.small_pipelines import PROMPTS, diffusers

CLOSE = 1e-4
SEED = 7


def noise_of(model: Model, count: int = 2, seed: int = SEED) -> KeyedNoise:
    """Our noise, draw after draw."""
    return KeyedNoise(seed, torch.arange(count), model.shape, "cpu")


def drawn(model: Model, asked: list[Ask], **settings: Any) -> Tensor:
    """Our pictures, in [-1, 1]."""
    sampling = generate.sampling_of(model, **settings)
    return torch.cat(list(generate.pictures(model, asked, seed=SEED, sampling=sampling)))


def as_ours(pictures: Any) -> Tensor:
    """Their pictures, (B, C, H, W) in [-1, 1], from tensors or arrays in [0, 1]."""
    if not isinstance(pictures, Tensor):
        pictures = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    return pictures * 2 - 1


def agree(ours: Tensor, theirs: Tensor) -> None:
    """Equal to 1e-4, and no constant."""
    assert float(ours.std()) > 0.02
    assert float((ours - theirs).abs().max()) < CLOSE


def fed(monkeypatch: pytest.MonkeyPatch, draws: Iterator[Tensor], *modules: Any) -> None:
    """Their modules draw what they are fed."""
    for module in modules:
        monkeypatch.setattr(module, "randn_tensor", lambda *a, **k: next(draws).contiguous())


def endless(noise: Callable[[Tensor, Tensor], Tensor]) -> Iterator[Tensor]:
    nothing = torch.zeros(())
    while True:
        yield noise(nothing, nothing)


ASKED = [Ask(words=each) for each in PROMPTS]


@pytest.mark.parametrize("guidance", [1.0, 7.5])
@pytest.mark.parametrize(
    "scheduler",
    [{}, {"prediction_type": "v_prediction"}, {"prediction_type": "sample"}],
    ids=["eps", "v", "x0"],
)
def test_stable_diffusion(tmp_path: Path, scheduler: dict[str, Any], guidance: float) -> None:
    pipeline = small.stable(tmp_path, **scheduler)
    model = load(tmp_path)
    settings = {"sampler": "ddim", "grid": "strided", "steps": 5, "guidance": guidance}
    negative = "dog" if guidance > 1 else ""  # at 1 there is nothing to lead away from
    ours = drawn(model, ASKED, **settings, negative=negative)
    start = noise_of(model)(torch.zeros(()), torch.zeros(()))
    theirs = pipeline(
        PROMPTS,
        negative_prompt=[negative] * 2,
        num_inference_steps=5,
        guidance_scale=guidance,
        latents=start,
        output_type="np",
    )
    agree(ours, as_ours(theirs.images))
    assert model.config.sampling.guidance == 7.5


def test_stable_diffusion_ending_at_pure_noise(tmp_path: Path) -> None:
    pipeline = small.stable(tmp_path, prediction_type="v_prediction", rescale_betas_zero_snr=True)
    model = load(tmp_path)
    assert model.config.sampling.grid.name == "strided"
    ours = drawn(model, ASKED, steps=5, guidance=3.0)
    start = noise_of(model)(torch.zeros(()), torch.zeros(()))
    theirs = pipeline(
        PROMPTS, num_inference_steps=5, guidance_scale=3.0, latents=start, output_type="np"
    )
    agree(ours, as_ours(theirs.images))


def test_inpainting(tmp_path: Path) -> None:
    pipeline = small.stable(tmp_path, inside=9)
    model = load(tmp_path)
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    mask = torch.zeros(1, 16, 16)
    mask[:, :8] = 1
    asked = [each._replace(image=image, mask=mask) for each in ASKED]
    ours = drawn(model, asked, sampler="ddim", grid="strided", steps=5)
    with torch.no_grad():
        kept = pipeline.vae.encode(image[None] * (1 - mask)).latent_dist.mean * 0.6
    start = noise_of(model)(torch.zeros(()), torch.zeros(()))
    theirs = pipeline(
        PROMPTS,
        image=(image[None] / 2 + 0.5).repeat(2, 1, 1, 1),
        mask_image=mask[None].repeat(2, 1, 1, 1),
        masked_image_latents=kept.repeat(2, 1, 1, 1),
        height=16,
        width=16,
        num_inference_steps=5,
        guidance_scale=7.5,
        latents=start,
        output_type="np",
    )
    agree(ours, as_ours(theirs.images))


def test_deepfloyd_first_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.pipelines.deepfloyd_if import pipeline_if
    from diffusers.schedulers import scheduling_ddpm

    pipeline = small.deepfloyd(tmp_path)
    model = load(tmp_path)
    assert model.denoiser.learned
    assert str(model.config.sampling.sampler) == "ddpm:variance=learned"
    ours = drawn(model, ASKED, steps=5)
    fed(monkeypatch, endless(noise_of(model)), pipeline_if, scheduling_ddpm)
    theirs = pipeline(
        PROMPTS,
        num_inference_steps=5,
        guidance_scale=7.0,
        clean_caption=False,
        output_type="pt",
    )
    agree(ours, theirs.images.clamp(-1, 1))


def test_deepfloyd_second_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.pipelines.deepfloyd_if import pipeline_if_superresolution
    from diffusers.schedulers import scheduling_ddpm

    pipeline = small.deepfloyd(tmp_path / "second", enlarges=True)
    small.deepfloyd(tmp_path / "first")
    first, second = load(tmp_path / "first"), load(tmp_path / "second")
    few = (
        first.config.sampling.model_copy(update={"steps": 4}),
        second.config.sampling.model_copy(update={"steps": 5}),
    )
    (ours,) = generate.cascade(first, second, ASKED, seed=SEED, sampling=few)
    low = drawn(first, ASKED, steps=4)

    own = endless(noise_of(second, seed=SEED | 1 << 63))
    keys = torch.tensor([[0, 0], [1, 0]])

    def draws() -> Iterator[Tensor]:
        yield next(own)
        yield normal(SEED, keys, Stream.IMAGE, second.shape)
        yield from own

    fed(monkeypatch, draws(), pipeline_if_superresolution, scheduling_ddpm)
    theirs = pipeline(
        PROMPTS,
        image=low,
        height=16,
        width=16,
        num_inference_steps=5,
        guidance_scale=4.0,
        noise_level=250,
        clean_caption=False,
        output_type="pt",
    )
    agree(ours, theirs.images.clamp(-1, 1))


def test_a_cascade_does_not_depend_on_its_batches(tmp_path: Path) -> None:
    small.deepfloyd(tmp_path / "second", enlarges=True)
    small.deepfloyd(tmp_path / "first")
    first, second = load(tmp_path / "first"), load(tmp_path / "second")
    few = tuple(m.config.sampling.model_copy(update={"steps": 2}) for m in (first, second))
    asked = [*ASKED, Ask(words="cat")]

    def run(batch: int) -> Tensor:
        found = generate.cascade(first, second, asked, seed=1, batch=batch, sampling=few)
        return torch.cat(list(found))

    assert torch.allclose(run(3), run(2), atol=1e-5)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("own", [True, False], ids=["ours", "theirs"])
def test_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: bool, variance: str) -> None:
    from diffusers.pipelines.ddpm import pipeline_ddpm
    from diffusers.schedulers import scheduling_ddpm

    # Ours has no such blocks, so that their class stands in.
    unet = small.plain(**({} if own else {"resnet_time_scale_shift": "scale_shift"}))
    pipeline = small.pixels(tmp_path, unet, variance_type=variance)
    model = load(tmp_path)
    assert type(model.network).__name__ == ("UNet2D" if own else "Plain")
    sampler = f"ddpm:variance={'posterior' if variance == 'fixed_small' else 'beta'}"
    ours = drawn(model, [Ask()] * 2, sampler=sampler, grid="leading", steps=5)
    fed(monkeypatch, endless(noise_of(model)), pipeline_ddpm, scheduling_ddpm)
    theirs = pipeline(batch_size=2, num_inference_steps=5, output_type="np")
    agree(ours, as_ours(theirs.images))


@pytest.mark.parametrize("blank", [True, False])
def test_pixels_with_classes(tmp_path: Path, blank: bool) -> None:
    unet = small.plain(num_class_embeds=3)
    small.pixels(tmp_path, unet)
    if blank:
        small.edited(tmp_path / "model_index.json", id2label={"0": "zero", "1": "one"})
    model = load(tmp_path)
    assert model.conditioner.classes == (("zero", "one") if blank else ("0", "1", "2"))
    x = noise_of(model)(torch.zeros(()), torch.zeros(()))
    cond = model.conditioner([Ask(label=1), Ask(label=None if blank else 2)])
    t = torch.tensor(0.4, dtype=torch.float64)
    with torch.no_grad():
        found, _ = model.denoiser.raw(
            x,
            t,
            model.denoiser.corruption.schedule.level(t),
            model.denoiser.parameterization(model.denoiser.corruption.schedule.level(t)),
            cond,
        )
        wanted = unet(x, 399, class_labels=torch.tensor([1, 2])).sample
    agree(found, wanted)


def test_dit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers.pipelines.dit import pipeline_dit

    pipeline = small.dit(tmp_path)
    model = load(tmp_path)
    assert model.denoiser.learned
    assert model.conditioner.find("kind 207") == 207
    ours = drawn(model, [Ask(label=3), Ask(label=207)], steps=5)
    fed(monkeypatch, endless(noise_of(model)), pipeline_dit)
    theirs = pipeline(
        class_labels=[3, 207], guidance_scale=4.0, num_inference_steps=5, output_type="pt"
    )
    agree(ours, as_ours(theirs.images))


def test_dit_by_its_older_name(tmp_path: Path) -> None:
    """With the settings that its class had then and never used."""
    small.dit(tmp_path)
    new = load(tmp_path)
    small.edited(
        tmp_path / "transformer/config.json",
        _class_name="Transformer2DModel",
        cross_attention_dim=None,
        double_self_attention=False,
        use_linear_projection=False,
    )
    old = load(tmp_path)
    asked = [Ask(label=1)]
    assert torch.equal(drawn(new, asked, steps=2), drawn(old, asked, steps=2))


@pytest.mark.parametrize("third", [True, False], ids=["t5", "without"])
def test_stable_diffusion_3(tmp_path: Path, third: bool) -> None:
    pipeline = small.stable3(tmp_path, third)
    model = load(tmp_path)
    assert str(model.config.sampling.grid) == "uniform:shift=3.0"
    start = noise_of(model)(torch.zeros(()), torch.zeros(()))
    theirs = pipeline(
        PROMPTS,
        negative_prompt=["dog"] * 2,
        num_inference_steps=6,
        guidance_scale=4.0,
        latents=start,
        output_type="np",
    )
    # It shifts the smallest noise of its table twice, so that its steps are not quite even.
    times = ",".join(map(str, pipeline.scheduler.sigmas.tolist()))
    ours = drawn(model, ASKED, grid=f"given:times=({times})", steps=6, negative="dog")
    agree(ours, as_ours(theirs.images))


@pytest.mark.parametrize("guided", [True, False], ids=["dev", "schnell"])
def test_flux(tmp_path: Path, guided: bool) -> None:
    pipeline = small.flux(tmp_path, guided)
    model = load(tmp_path)
    assert model.config.sampling.steps == (28 if guided else 4)
    small_config = model.config.model_copy(update={"height": 16, "width": 16})
    model = replace(model, config=small_config)
    start = noise_of(model)(torch.zeros(()), torch.zeros(()))
    theirs = pipeline(
        PROMPTS,
        height=16,
        width=16,
        num_inference_steps=4,
        guidance_scale=3.5,
        max_sequence_length=512 if guided else 256,
        latents=pipeline._pack_latents(start.contiguous(), *start.shape),
        output_type="np",
    )
    mu = 0.5 + (1.15 - 0.5) * (16 - 256) / (4096 - 256)
    shift = math.exp(mu) if guided else 1.0
    ours = drawn(model, ASKED, grid=f"uniform:shift={shift}", steps=4)
    agree(ours, as_ours(theirs.images))


def test_words_by_a_sentencepiece_model(tmp_path: Path) -> None:
    """As DeepFloyd IF comes: without tokenizer.json."""
    protos = pytest.importorskip("sentencepiece.sentencepiece_model_pb2")
    small.deepfloyd(tmp_path)
    before = load(tmp_path).conditioner(ASKED)["text"]
    held = protos.ModelProto()
    held.trainer_spec.model_type, held.trainer_spec.unk_id = 1, 2
    held.normalizer_spec.add_dummy_prefix = True
    kinds = {"<pad>": 3, "</s>": 3, "<unk>": 2}
    for piece, score in small.PIECES:
        held.pieces.add(piece=piece, score=score, type=kinds.get(piece, 1))
    (tmp_path / "tokenizer/tokenizer.json").unlink()
    (tmp_path / "tokenizer/spiece.model").write_bytes(held.SerializeToString())
    small.edited(tmp_path / "tokenizer/tokenizer_config.json", tokenizer_class="T5Tokenizer")
    assert torch.equal(load(tmp_path).conditioner(ASKED)["text"], before)


_OLD = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def test_weights_by_their_older_names(tmp_path: Path) -> None:
    """Of CLIP inside another module, and of attention outside a transformer."""
    small.stable(tmp_path / "stable")
    small.pixels(tmp_path / "pixels")

    def pictures() -> Tensor:
        words, plain = load(tmp_path / "stable"), load(tmp_path / "pixels")
        return torch.cat(
            (drawn(words, ASKED, steps=2), drawn(plain, [Ask()], steps=2).repeat(1, 1, 2, 2))
        )

    def renamed(path: Path, change: Callable[[str], str], **more: Tensor) -> None:
        held = {change(name): value for name, value in load_file(path).items()}
        save_file({**held, **more}, path)

    def old(name: str) -> str:
        for new, before in _OLD.items():
            name = name.replace(new, before)
        return name

    before = pictures()
    position = {"text_model.embeddings.position_ids": torch.arange(12)[None]}
    words = tmp_path / "stable/text_encoder/model.safetensors"
    renamed(words, lambda name: f"text_model.{name}", **position)
    weights = "diffusion_pytorch_model.safetensors"
    for part in ("stable/vae", "pixels/unet"):
        assert any(old(name) != name for name in load_file(tmp_path / part / weights))
        renamed(tmp_path / part / weights, old)
    assert torch.equal(pictures(), before)


def test_latents_come_back_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small.stable3(tmp_path)
    codec = load(tmp_path).codec
    pictures = torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    keys = torch.tensor([[i, 0] for i in range(5)])
    whole = codec.encode(pictures, keys), codec.decode(codec.encode(pictures))
    monkeypatch.setattr("couette.interop.codecs.AT_ONCE", 2 * 16 * 16)
    parts = codec.encode(pictures, keys), codec.decode(codec.encode(pictures))
    for one, other in zip(whole, parts, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    assert float((codec.encode(pictures, keys) - codec.encode(pictures)).std()) > 0.01


def test_flux_is_shifted_for_its_own_size(tmp_path: Path) -> None:
    small.flux(tmp_path)
    grid = load(tmp_path).config.sampling.grid
    assert grid.settings["shift"] == pytest.approx(math.exp(1.15))


def test_stable_diffusion_3_is_shifted_for_its_own_size(tmp_path: Path) -> None:
    """By the 16 tokens of 8×8 latents, as its pipeline reckons them."""
    small.stable3(tmp_path, use_dynamic_shifting=True)
    module = sys.modules[diffusers.StableDiffusion3Pipeline.__module__]
    grid = load(tmp_path).config.sampling.grid
    assert grid.settings["shift"] == pytest.approx(math.exp(module.calculate_shift(16)))


@pytest.mark.parametrize("build", [small.stable, small.deepfloyd, small.dit, small.stable3])
def test_bfloat16_is_near(tmp_path: Path, build: Callable[[Path], Any]) -> None:
    build(tmp_path)
    wide, narrow = load(tmp_path), load(tmp_path, Runtime(dtype="bfloat16"))
    assert {p.dtype for p in narrow.network.parameters()} == {torch.bfloat16}
    asked = [Ask(label=1)] if wide.conditioner.classes else ASKED
    x = noise_of(wide, len(asked))(torch.zeros(()), torch.zeros(()))
    t = torch.tensor(0.5, dtype=torch.float64)
    with torch.no_grad():
        one, other = (m.denoiser(x, t, m.conditioner(asked)).x0 for m in (wide, narrow))
    assert 1e-5 < float((one - other).abs().mean()) < 0.05 * float(one.std())


def test_usual_settings_draw(tmp_path: Path) -> None:
    """As each family draws where nothing is asked, but in few steps."""
    for build in (small.stable, small.deepfloyd, small.pixels, small.dit, small.stable3):
        folder = tmp_path / build.__name__
        build(folder)
        model = load(folder)
        usual: SamplingConfig = generate.sampling_of(model, steps=3)
        words = model.conditioner.words is not None
        asked = [Ask(words="cat" if words else None)]
        (found,) = generate.pictures(model, asked, sampling=usual)
        assert found.shape == (1, 3, model.config.height, model.config.width)


def test_prompts_are_encoded_once_and_lie_between_each_other(tmp_path: Path) -> None:
    small.stable3(tmp_path)
    model = load(tmp_path)
    words = model.conditioner.words
    assert words is not None
    calls: list[list[str]] = []
    encode = words._encode  # type: ignore[attr-defined]
    words._encode = lambda captions: calls.append(list(captions)) or encode(captions)  # type: ignore[attr-defined]
    asked = [Ask(words="cat"), Ask(words="dog"), Ask(words="cat", toward="dog", weight=0.25)]
    told = model.conditioner(asked)
    model.conditioner([Ask(words="dog")])
    assert calls == [["cat", "dog"]]
    for rows in told.values():
        assert torch.allclose(rows[2], 0.75 * rows[0] + 0.25 * rows[1], atol=1e-6)
        assert not torch.allclose(rows[0], rows[1], atol=1e-3)
