"""Small pipelines of diffusers with random weights, saved as their own tools save them."""

from __future__ import annotations

import json
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

WHY = "needs the extra couette[diffusers]"
diffusers = pytest.importorskip("diffusers", reason=WHY)
transformers = pytest.importorskip("transformers", reason=WHY)

WIDTH = 16
"""Features of a token."""
PROMPTS = ["a red cat", "two blue dogs"]
TRAILING = {"clip_sample": False, "timestep_spacing": "trailing"}
LINEAR = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def seeded(build: Callable[[], Any], seed: int = 0) -> Any:
    """What is built, its weights drawn from a seed and large enough that each of them matters."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = build()
        for name, weight in module.named_parameters():
            if weight.ndim > 1 and bool((weight == 0).all()):
                torch.nn.init.normal_(weight, std=0.2)
            elif name.endswith("bias"):
                torch.nn.init.normal_(weight, std=0.1)
    return module.eval()


def clip_tokenizer() -> Any:
    letters = string.ascii_lowercase
    tokens = [*letters, *(f"{each}</w>" for each in letters), "ca", "cat</w>", "do", "dog"]
    vocab = {each: i for i, each in enumerate([*tokens, "<|startoftext|>", "<|endoftext|>"])}
    merges = [("c", "a"), ("ca", "t</w>"), ("d", "o"), ("do", "g")]
    return transformers.CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=12)


def clip(projected: bool = False, width: int = WIDTH, seed: int = 1) -> Any:
    tokens = clip_tokenizer()
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=width,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        projection_dim=width,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    made = transformers.CLIPTextModelWithProjection if projected else transformers.CLIPTextModel
    return seeded(lambda: made(config), seed)


PIECES = [
    *[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0)],
    *[(each, -3.0 - i / 8) for i, each in enumerate(string.ascii_lowercase)],
    *[("▁red", -1.0), ("▁cat", -1.5)],
]
"""What T5's tokenizer here cuts words into, and their scores."""


def t5_tokenizer() -> Any:
    return transformers.T5Tokenizer(vocab=PIECES, extra_ids=0)


def t5(width: int = WIDTH) -> Any:
    config = transformers.T5Config(
        vocab_size=40,
        d_model=width,
        d_kv=8,
        d_ff=24,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    return seeded(lambda: transformers.T5EncoderModel(config), 2)


def autoencoder(channels: int = 4, **more: Any) -> Any:
    return seeded(
        lambda: diffusers.AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=channels,
            norm_num_groups=4,
            sample_size=16,
            **more,
        ),
        3,
    )


def conditional(inside: int, out: int, **more: Any) -> Any:
    settings: dict[str, Any] = {
        "sample_size": 8,
        "in_channels": inside,
        "out_channels": out,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": WIDTH,
    }
    return seeded(lambda: diffusers.UNet2DConditionModel(**{**settings, **more}), 4)


def stable(folder: Path, inside: int = 4, **scheduler: Any) -> Any:
    """Stable Diffusion, saved to a folder."""
    parts: dict[str, Any] = {
        "vae": autoencoder(scaling_factor=0.6),
        "text_encoder": clip(),
        "tokenizer": clip_tokenizer(),
        "unet": conditional(inside, 4),
        "scheduler": diffusers.DDIMScheduler(
            **{**LINEAR, **TRAILING, "steps_offset": 1, **scheduler}
        ),
        "safety_checker": None,
        "feature_extractor": None,
    }
    name = "StableDiffusionPipeline" if inside == 4 else "StableDiffusionInpaintPipeline"
    pipeline = getattr(diffusers, name)(**parts, requires_safety_checker=False)
    return saved(pipeline, folder)


def deepfloyd(folder: Path, enlarges: bool = False, **more: Any) -> Any:
    """DeepFloyd IF's stage I or II, saved to a folder."""
    scheduler: dict[str, Any] = {
        "beta_schedule": "squaredcos_cap_v2",
        "variance_type": "learned_range",
        "thresholding": True,
        "dynamic_thresholding_ratio": 0.95,
        "sample_max_value": 1.5,
    }
    blocks = {
        "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "encoder_hid_dim": WIDTH,
        "encoder_hid_dim_type": "text_proj",
        "cross_attention_dim": 32,
        "addition_embed_type": "text",
        "addition_embed_type_num_heads": 2,
        "cross_attention_norm": "group_norm",
        "resnet_time_scale_shift": "scale_shift",
        "act_fn": "gelu",
        "only_cross_attention": False,
    }
    if enlarges:
        blocks |= {"class_embed_type": "timestep", "sample_size": 16}
    parts: dict[str, Any] = {
        "tokenizer": t5_tokenizer(),
        "text_encoder": t5(),
        "unet": conditional(6 if enlarges else 3, 6, **blocks),
        "scheduler": diffusers.DDPMScheduler(**{**scheduler, **more}),
        "safety_checker": None,
        "feature_extractor": None,
        "watermarker": None,
    }
    if enlarges:
        parts["image_noising_scheduler"] = diffusers.DDPMScheduler(
            beta_schedule="squaredcos_cap_v2"
        )
    made = diffusers.IFSuperResolutionPipeline if enlarges else diffusers.IFPipeline
    return saved(made(**parts, requires_safety_checker=False), folder)


def plain(**more: Any) -> Any:
    """A UNet2DModel that ours can stand for."""
    settings = {
        "sample_size": 8,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "attention_head_dim": 4,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    }
    return seeded(lambda: diffusers.UNet2DModel(**{**settings, **more}), 5)


def pixels(folder: Path, unet: Any = None, **scheduler: Any) -> Any:
    """DDPM, saved to a folder."""
    unet = plain() if unet is None else unet
    return saved(diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(**scheduler)), folder)


def dit(folder: Path, labels: int = 1000) -> Any:
    """DiT, saved to a folder."""
    transformer = seeded(
        lambda: diffusers.DiTTransformer2DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            sample_size=8,
            num_embeds_ada_norm=labels,
        ),
        6,
    )
    pipeline = diffusers.DiTPipeline(
        transformer=transformer,
        vae=autoencoder(),
        scheduler=diffusers.DDIMScheduler(**TRAILING),
    )
    saved(pipeline, folder)
    names = {str(i): f"kind {i}, also {i}" for i in range(labels)}
    edited(folder / "model_index.json", id2label=names)
    return pipeline


def stable3(folder: Path, third: bool = True, **scheduler: Any) -> Any:
    """Stable Diffusion 3, saved to a folder."""
    transformer = seeded(
        lambda: diffusers.SD3Transformer2DModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=2 * WIDTH,
            caption_projection_dim=16,
            pooled_projection_dim=2 * WIDTH,
            pos_embed_max_size=8,
        ),
        7,
    )
    parts = {
        "transformer": transformer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(**{"shift": 3.0, **scheduler}),
        "vae": autoencoder(scaling_factor=1.5, shift_factor=0.06, use_quant_conv=False),
        "text_encoder": clip(projected=True),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": clip(projected=True, seed=8),
        "tokenizer_2": clip_tokenizer(),
        "text_encoder_3": t5(2 * WIDTH) if third else None,
        "tokenizer_3": t5_tokenizer() if third else None,
    }
    return saved(diffusers.StableDiffusion3Pipeline(**parts), folder)


def flux(folder: Path, guided: bool = True) -> Any:
    """Flux, saved to a folder."""
    transformer = seeded(
        lambda: diffusers.FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            guidance_embeds=guided,
            axes_dims_rope=(2, 2, 4),
        ),
        9,
    )
    parts = {
        "transformer": transformer,
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=guided),
        "vae": autoencoder(scaling_factor=0.4, shift_factor=0.1),
        "text_encoder": clip(),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": t5(),
        "tokenizer_2": t5_tokenizer(),
    }
    return saved(diffusers.FluxPipeline(**parts), folder)


def saved(pipeline: Any, folder: Path) -> Any:
    transformers.logging.disable_progress_bar()
    pipeline.save_pretrained(folder, safe_serialization=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def edited(path: Path, **fields: Any) -> None:
    """Change settings of a JSON file; None takes one away."""
    held = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({k: v for k, v in held.items() if v is not None}))
