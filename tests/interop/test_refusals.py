"""What can't or must not be loaded is refused in a sentence that says what to do."""

from __future__ import annotations

import json
import pickle
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import couette
from couette import interop
from couette.contracts import Ask
from couette.errors import CheckpointError, ConfigError, InputError, ShapeError
from couette.generate import pictures
from couette.interop.hub import needed
from couette.opening import open_model
from interop import small_pipelines as small
from interop.small_pipelines import edited


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each kind that is damaged below."""
    home = tmp_path_factory.mktemp("built")
    small.stable(home / "stable")
    small.pixels(home / "pixels")
    small.deepfloyd(home / "first")
    small.deepfloyd(home / "second", enlarges=True)
    return home


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(built / name, tmp_path / name))

    return copy


class Canary:
    """What would leave a file behind if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def without(path: Path, name: str) -> None:
    """A file of weights with one of them left out."""
    held = load_file(path)
    del held[name]
    save_file(held, path)


Damage = Callable[[Path], object]

DAMAGE: dict[str, tuple[str, Damage, str]] = {
    "pipeline": (
        "stable",
        lambda f: edited(f / "model_index.json", _class_name="StableDiffusionXLPipeline"),
        "is a 'StableDiffusionXLPipeline', which is none of the kinds that can be loaded "
        r"\(the nearest is StableDiffusion",
    ),
    "network": (
        "stable",
        lambda f: edited(f / "unet/config.json", _class_name="UNetMotionModel"),
        "The unet of .* is a 'UNetMotionModel', and a StableDiffusionPipeline is loaded here with "
        "UNet2DConditionModel",
    ),
    "autoencoder": (
        "stable",
        lambda f: edited(f / "vae/config.json", _class_name="os.system"),
        "The vae of .* is a 'os.system'",
    ),
    "encoder": (
        "stable",
        lambda f: edited(f / "text_encoder/config.json", architectures=["Blip2Model"]),
        "The text_encoder of .* is a 'Blip2Model', which can't be loaded; those that can are",
    ),
    "scheduler": (
        "stable",
        lambda f: edited(f / "scheduler/scheduler_config.json", _class_name="SdeVeScheduler"),
        "The scheduler of .*, 'SdeVeScheduler', says nothing here",
    ),
    "betas": (
        "stable",
        lambda f: edited(f / "scheduler/scheduler_config.json", beta_schedule="laplace"),
        "has beta_schedule 'laplace', which is not known here; it can be linear",
    ),
    "prediction": (
        "stable",
        lambda f: edited(f / "scheduler/scheduler_config.json", prediction_type="noise"),
        "has prediction_type 'noise', which is not known here; it can be epsilon",
    ),
    "channels": (
        "stable",
        lambda f: edited(f / "unet/config.json", in_channels=8),
        "takes 8 channels, of which 4 are latents; it can have 4, or 9",
    ),
    "size": (
        "stable",
        lambda f: edited(f / "unet/config.json", sample_size=None),
        "says no sample_size",
    ),
    "kind of a setting": (
        "stable",
        lambda f: edited(f / "unet/config.json", in_channels=[4]),
        "hold something that they should not .*fetch the model again",
    ),
    "another encoder": (
        "stable",
        lambda f: edited(f / "text_encoder/config.json", hidden_size=32),
        "gives 32 features, and its network reads 16",
    ),
    "json": (
        "stable",
        lambda f: (f / "unet/config.json").write_text("{"),
        "unet/config.json is not valid JSON",
    ),
    "no table": (
        "stable",
        lambda f: (f / "unet/config.json").write_text("[]"),
        "unet/config.json is not a table of settings",
    ),
    "no scheduler": (
        "stable",
        lambda f: (f / "scheduler/scheduler_config.json").unlink(),
        "scheduler_config.json is missing",
    ),
    "no weights": (
        "stable",
        lambda f: (f / "unet/diffusion_pytorch_model.safetensors").unlink(),
        "unet holds no weights; fetch the whole model again",
    ),
    "no tokenizer": (
        "stable",
        lambda f: shutil.rmtree(f / "tokenizer"),
        r"tokenizer holds no tokenizer \(tokenizer.json or vocab.json\), so words can't be read",
    ),
    "damaged tokenizer": (
        "stable",
        lambda f: (f / "tokenizer/tokenizer.json").write_text("{}"),
        "tokenizer holds no usable tokenizer: ",
    ),
    "another tokenizer": (
        "stable",
        lambda f: edited(f / "text_encoder/config.json", vocab_size=40),
        "has 58 tokens, and its text_encoder knows 40; these parts do not belong together",
    ),
    "cut weights": (
        "stable",
        lambda f: (f / "vae/diffusion_pytorch_model.safetensors").write_bytes(b"\0" * 20),
        "is not a whole safetensors file|has a damaged header",
    ),
    "other weights": (
        "stable",
        lambda f: edited(f / "unet/config.json", layers_per_block=2),
        r"unet do not fit .*conv1.weight' is of the shape \(16, 24.* asks for \(16, 32",
    ),
    "a weight too few": (
        "stable",
        lambda f: without(f / "unet/diffusion_pytorch_model.safetensors", "conv_out.bias"),
        "The weights in .*unet lack 'conv_out.bias', which its config asks for",
    ),
    "weights of another size": (
        "stable",
        lambda f: edited(f / "vae/config.json", block_out_channels=[8, 16]),
        r"vae do not fit its config: .* is of the shape \(8,\), and the config asks for \(16,\)",
    ),
    "words too wide for any memory": (
        "stable",
        lambda f: edited(f / "text_encoder/config.json", intermediate_size=10**12),
        r"text_encoder do not fit its config: .* is of the shape \(24,\), and the config asks for",
    ),
    "words by other weights": (
        "stable",
        lambda f: edited(f / "text_encoder/config.json", num_hidden_layers=3),
        "The weights in .*text_encoder lack",
    ),
    "our network by other weights": (
        "pixels",
        lambda f: edited(f / "unet/config.json", layers_per_block=2),
        "do not fit the network of their config.*is missing",
    ),
    "code of its own": (
        "stable",
        lambda f: edited(f / "text_encoder/config.json", auto_map={"AutoModel": "evil.Model"}),
        "has 'auto_map', which asks for code beyond the classes known here",
    ),
    "quantization": (
        "stable",
        lambda f: edited(f / "unet/config.json", quantization_config={"quant_method": "x"}),
        "has 'quantization_config', which asks for code",
    ),
    "an adapter": (
        "stable",
        lambda f: (f / "text_encoder/adapter_config.json").write_text("{}"),
        "holds an adapter of another model",
    ),
    "shards elsewhere": (
        "stable",
        lambda f: (f / "text_encoder/model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"a": "../../secret.safetensors"}})
        ),
        "names the weights '../../secret.safetensors', and there are no such safetensors beside it",
    ),
    "shards that are pickles": (
        "stable",
        lambda f: (
            (f / "text_encoder/model.bin").write_bytes(b""),
            (f / "text_encoder/model.safetensors.index.json").write_text(
                json.dumps({"weight_map": {"a": "model.bin"}})
            ),
        ),
        "names the weights 'model.bin'",
    ),
    "endless layers": (
        "stable",
        lambda f: edited(f / "unet/config.json", layers_per_block=[1, 10**9]),
        "asks for layers_per_block=.*, and no network has over 1,000 layers",
    ),
    "too wide for any memory": (
        "pixels",
        lambda f: edited(f / "unet/config.json", block_out_channels=[8, 4 * 10**6]),
        "do not fit the network of their config",
    ),
    "theirs too wide for any memory": (
        "stable",
        lambda f: edited(f / "unet/config.json", block_out_channels=[8, 4 * 10**6]),
        r"The weights in .*unet do not fit its config: .* asks for \(4000000,\); use the",
    ),
    "clipping": (
        "pixels",
        lambda f: edited(f / "scheduler/scheduler_config.json", clip_sample_range=2.0),
        "clips at 2.0, and pixels end at 1",
    ),
    "class names": (
        "pixels",
        lambda f: (
            edited(f / "unet/config.json", num_class_embeds=5),
            edited(f / "model_index.json", id2label={"0": "a", "1": "b"}),
        ),
        "names 2 classes, and its network knows 5",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named(case: str, copied: Callable[[str], Path]) -> None:
    name, damage, sentence = DAMAGE[case]
    folder = copied(name)
    damage(folder)
    with pytest.raises((CheckpointError, ShapeError), match=sentence) as caught:
        open_model(folder)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


TOLD = [
    ("pixels", "class_embed_type", "timestep", "than 'DDPMPipeline' tells.* no class_embed"),
    ("pixels", "class_embed_type", "identity", "with no class_embed_type"),
    (
        "stable",
        "addition_embed_type",
        "text_time",
        "'StableDiffusionPipeline' tells it here",
    ),
    ("stable", "addition_embed_type", "image", "with no addition_embed_type"),
    ("stable", "class_embed_type", "projection", "with no class_embed_type"),
    ("stable", "num_class_embeds", 1000, "with no num_class_embeds"),
    ("stable", "encoder_hid_dim_type", "image_proj", "encoder_hid_dim_type 'text_proj' or without"),
    ("stable", "time_cond_proj_dim", 256, "with no time_cond_proj_dim"),
    (
        "first",
        "class_embed_type",
        "timestep",
        "'IFPipeline' tells it here; use a model with no",
    ),
    ("first", "addition_embed_type", "text_image", "with addition_embed_type 'text' or without it"),
    ("second", "class_embed_type", "simple_projection", "class_embed_type 'timestep' or without"),
]


@pytest.mark.parametrize(("kind", "key", "value", "instead"), TOLD)
def test_what_is_never_told(
    kind: str, key: str, value: object, instead: str, copied: Callable[[str], Path]
) -> None:
    """Networks that ask for it are refused when they are opened, not when they draw."""
    folder = copied(kind)
    edited(folder / "unet/config.json", **{key: value})
    with pytest.raises(
        CheckpointError, match=f"has {key} {value!r}, so it must be told more .*{instead}"
    ):
        interop.describe(folder)


PARTS_THAT_DO_NOT_FIT = {
    "dit": (small.dit, "takes 4 channels, and the latents of its autoencoder have 5; these parts"),
    "sd3": (small.stable3, "takes 4 channels, and the latents of its autoencoder have 5"),
    "flux": (small.flux, "takes 16 channels, and squares of 2×2 latents of its autoenc.* have 20"),
    "sd": (small.stable, "takes 4 channels, of which 5 are latents"),
}


@pytest.mark.parametrize("case", PARTS_THAT_DO_NOT_FIT)
def test_latents_of_other_channels(case: str, tmp_path: Path) -> None:
    """Known from the configs, before any weights are read."""
    build, sentence = PARTS_THAT_DO_NOT_FIT[case]
    build(tmp_path)
    interop.describe(tmp_path)
    edited(tmp_path / "vae/config.json", latent_channels=5)
    with pytest.raises(CheckpointError, match=sentence):
        interop.describe(tmp_path)
    edited(tmp_path / "vae/config.json", out_channels=4)
    with pytest.raises(CheckpointError, match="takes pictures of 3 channels and makes them of 4"):
        interop.describe(tmp_path)


@pytest.mark.parametrize("build", [small.stable3, small.flux])
def test_flows_of_other_channels(build: Callable[[Path], object], tmp_path: Path) -> None:
    build(tmp_path)
    edited(tmp_path / "transformer/config.json", out_channels=6)
    with pytest.raises(CheckpointError, match=r"makes 6 channels, and .* have"):
        interop.describe(tmp_path)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_pickled_weights_are_not_opened(part: str, copied: Callable[[str], Path]) -> None:
    folder = copied("stable")
    canary = folder / "canary"
    (held,) = (folder / part).glob("*.safetensors")
    held.unlink()
    stem = "pytorch_model" if part == "text_encoder" else "diffusion_pytorch_model"
    torch.save({"weight": Canary(canary)}, folder / part / f"{stem}.bin")
    with pytest.raises(CheckpointError, match=r"a pickle, which may run code.*convert it on"):
        open_model(folder)
    assert not canary.exists()


def test_a_checkpoint_file_is_not_opened(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    path = tmp_path / "model.ckpt"
    path.write_bytes(pickle.dumps(Canary(canary)))
    for given in (path, tmp_path):
        with pytest.raises(CheckpointError, match="convert it to safetensors in diffusers' layout"):
            open_model(given)
    assert not canary.exists()


def test_a_name_that_stands_twice_in_the_weights(copied: Callable[[str], Path]) -> None:
    folder = copied("stable")
    header = b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},' * 1
    header += b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    raw = struct.pack("<Q", len(header)) + header + b"\0" * 4
    (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(raw)
    with pytest.raises(CheckpointError, match="a name stands twice"):
        open_model(folder)


def test_a_network_by_itself(built: Path) -> None:
    """Pixels need nothing else; words and latents do."""
    model = open_model(built / "pixels/unet")
    assert model.shape == (3, 8, 8)
    with pytest.raises(CheckpointError, match="holds a 'UNet2DConditionModel' by itself; give the"):
        open_model(built / "stable/unet")


def test_weights_in_half_the_bytes(copied: Callable[[str], Path]) -> None:
    """A variant is taken where there are no others."""
    folder = copied("stable")
    for path in folder.glob("*/*.safetensors"):
        path.rename(path.with_name(f"{path.stem}.fp16.safetensors"))
    model = open_model(folder)
    assert {p.dtype for p in model.network.parameters()} == {torch.float32}


def test_a_second_stage_wants_pictures(built: Path) -> None:
    model = open_model(built / "second")
    with pytest.raises(InputError, match=r"enlarges pictures.*couette.generate.cascade"):
        next(pictures(model, [Ask(words="cat")]))
    half = [Ask(image=torch.zeros(3, 16, 16)), Ask()]
    with pytest.raises(InputError, match="1 of 2 pictures asked for are to be made from another"):
        model.conditioner(half)
    with pytest.raises(ShapeError, match=r"A picture of \(3, 8, 8\)"):
        model.conditioner([Ask(image=torch.zeros(3, 8, 8))])
    with pytest.raises(InputError, match="leave out the mask"):
        model.conditioner([Ask(image=torch.zeros(3, 16, 16), mask=torch.zeros(1, 16, 16))])
    first = open_model(built / "stable")
    with pytest.raises(InputError, match="works from no other picture"):
        first.conditioner([Ask(image=torch.zeros(3, 16, 16))])
    with pytest.raises(InputError, match="The second model enlarges nothing"):
        interop.enlarging(first, torch.zeros(1, 3, 8, 8), [Ask()])
    with pytest.raises(InputError, match="a time from 0 to 1, not 250"):
        interop.enlarging(model, torch.zeros(1, 3, 8, 8), [Ask()], noise=250)


def test_classes_that_must_be_named(copied: Callable[[str], Path], tmp_path: Path) -> None:
    small.pixels(tmp_path / "named", small.plain(num_class_embeds=3))
    model = open_model(tmp_path / "named")
    with pytest.raises(InputError, match="draws one of its classes, and none was named"):
        next(pictures(model, [Ask()]))
    with pytest.raises(InputError, match="Guidance 2 needs a model trained with labels"):
        couette.sample(model, count=1, label=0, guidance=2.0, steps=1)
    with pytest.raises(InputError, match="name one for each"):
        model.conditioner([Ask(label=1), Ask()])
    assert couette.sample(model, count=2, label=[0, 2], steps=2).shape == (2, 3, 8, 8)


def test_what_is_needed_of_a_model_of_the_hub() -> None:
    files = [
        "model_index.json",
        "README.md",
        "v1-5.ckpt",
        "unet/config.json",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.safetensors",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "text_encoder/model.fp16-00001-of-00002.safetensors",
        "text_encoder/model.fp16-00002-of-00002.safetensors",
        "text_encoder/model.safetensors.index.fp16.json",
        "safety_checker/model.safetensors",
        "tokenizer/vocab.json",
        "tokenizer/merges.txt",
        "deep/er/config.json",
    ]
    assert needed(files, "a/b") == [
        "model_index.json",
        "text_encoder/model.fp16-00001-of-00002.safetensors",
        "text_encoder/model.fp16-00002-of-00002.safetensors",
        "text_encoder/model.safetensors.index.fp16.json",
        "tokenizer/merges.txt",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_pytorch_model.safetensors",
    ]
    with pytest.raises(CheckpointError, match=r"a/b/unet has its weights only as .*ckpt, a pickle"):
        needed(["model_index.json", "unet/config.json", "unet/model.ckpt"], "a/b")
    with pytest.raises(CheckpointError, match="no model in diffusers' layout"):
        needed(["README.md", "pytorch_model.bin"], "a/b")


@pytest.mark.parametrize("package", ["diffusers", "transformers", "huggingface_hub"])
def test_a_missing_package_is_named(
    package: str, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    given = "owner/name" if package == "huggingface_hub" else str(built / "stable")
    with pytest.raises(ConfigError, match=r"pip install 'couette\[diffusers\]'"):
        open_model(given)


def test_without_accelerate(
    copied: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The same weights, the same refusals, and not a word about it."""
    folder = copied("stable")
    told = {"text": torch.ones(1, 12, small.WIDTH)}
    x, t = torch.ones(1, 4, 8, 8), torch.tensor(0.5, dtype=torch.float64)
    with torch.no_grad():
        before = open_model(folder).denoiser(x, t, told).x0
        module = sys.modules["diffusers.models.modeling_utils"]
        monkeypatch.setattr(module, "is_accelerate_available", lambda: False)
        assert torch.equal(open_model(folder).denoiser(x, t, told).x0, before)
    for setting in ({"layers_per_block": 2}, {"block_out_channels": [8, 32]}):
        edited(folder / "unet/config.json", **setting)
        with pytest.raises(CheckpointError, match=r"do not fit its config: .*the config asks for"):
            open_model(folder)
    assert not caplog.records


def test_pixels_need_no_other_library(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("diffusers", "transformers"):
        monkeypatch.setitem(sys.modules, package, None)
    assert type(open_model(built / "pixels").network).__name__ == "UNet2D"


def test_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    assert interop.is_foreign("owner/name")
    assert interop.is_foreign("hf:here/name")
    assert interop.home_of("hf:owner/name") == Path("owner--name")
    for path in ("here/name", "runs/digits", "name", "a/b/c", "../name", "hf:name", "~/x", "a b/c"):
        assert not interop.is_foreign(path), path
        assert interop.home_of(path) == Path(path)
