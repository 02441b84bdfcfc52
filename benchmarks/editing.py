"""What an edit costs over the network's evaluations that it makes: goal, at most 5 % more.

A default network for MNIST's pictures, with random weights. Each edit's walk is timed in turn with
as many bare evaluations of as many rows, forward and backward where it needs gradients.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import torch

from benchmarks.timing import Case, Goal, interleaved, ratio, report
from couette.config import DiffusionConfig, ModelConfig, SamplingConfig, Spec, spec
from couette.contracts import Cond, Corruption, Denoise, Prediction
from couette.editing import Edit, Scene, edits_of
from couette.generate import steps
from couette.model import Model, assemble, build_network
from couette.runtime import Runtime

ROUNDS = int(os.environ.get("ROUNDS", "15"))
STEPS = 8
ROWS = 8

EDITS: Mapping[str, Mapping[str, Any]] = {
    "img2img": {"strength": (0.99,)},
    "inpaint": {"box": (4, 4, 20, 20), "method": "replace"},
    "anagram": {"view": ("identity", "rotate:degrees=45")},
    "hybrid": {"parts": "frequency:sigma=2"},
    "superres": {"degrade": True, "method": "ddnm"},
    "deblur": {"degrade": True, "method": "pigdm"},
    "restore": {"degrade": True, "method": "dps"},
    "panorama": {"width": 56},
}


class Watched:
    """A denoiser that remembers what it was asked."""

    def __init__(self, denoise: Denoise) -> None:
        self.denoise = denoise
        self.asked: list[tuple[torch.Tensor, torch.Tensor, Cond, bool]] = []

    @property
    def corruption(self) -> Corruption:
        return self.denoise.corruption

    def __call__(self, x: torch.Tensor, t: torch.Tensor, cond: Cond) -> Prediction:
        self.asked.append((x.detach(), t, dict(cond), torch.is_grad_enabled()))
        return self.denoise(x, t, cond)


def model() -> Model:
    """An untrained model of 28 × 28 gray pictures in ten classes."""
    config = ModelConfig(
        recipe="default",
        channels=1,
        height=28,
        width=28,
        classes=tuple("0123456789"),
        codec=spec("symmetric"),
        diffusion=DiffusionConfig(),
        network=spec("unet", size="small"),
        sampling=SamplingConfig(sampler=spec("euler"), steps=STEPS),
    )
    torch.manual_seed(0)
    network = build_network(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    return assemble(config, network.eval(), Runtime(threads=torch.get_num_threads()))


def run() -> None:
    """Time all, print the table."""
    held = model()
    picture = torch.rand(1, 1, 28, 28) * 2 - 1
    rows, over = [], []
    for name, settings in EDITS.items():
        given = (picture,) if name not in ("anagram", "hybrid", "panorama") else ()
        labels = ("2", "5") if name in ("anagram", "hybrid") else ("3",)
        scene = Scene(held, given, ROWS, labels, sampling=held.config.sampling, raw=given)
        (edit,) = edits_of(scene, Spec(name=name, **settings))
        asked = evaluations(scene, edit)
        cases = [
            Case("bare evaluations", bare(held, asked)),
            Case(name, lambda scene=scene, edit=edit: walked(scene, edit)),
        ]
        interleaved(cases, ROUNDS, warm=2)
        share, spread = ratio(cases[0], cases[1])
        over.append(share)
        rows.append(
            {
                "edit": name,
                "evaluations": len(asked),
                "rows": len(asked[0][0]),
                "backward": "yes" if asked[0][3] else "",
                "bare, ms": 1e3 / cases[0].speed,
                "times bare": share,
                "±": spread,
            }
        )
    notes = {"threads": torch.get_num_threads(), "largest": max(over)}
    report("editing", rows, notes, [Goal("bare evaluations, to an edit", 1 / max(over), 1 / 1.05)])


def walked(scene: Scene, edit: Edit, watch: Callable[[Denoise], Denoise] | None = None) -> None:
    """The walk of an edit, from noise to its end."""

    def editor(denoise: Denoise) -> Denoise:
        inner = watch(denoise) if watch else denoise
        return edit.editor(inner) if edit.editor else inner

    deque(
        steps(
            scene.model,
            edit.asked,
            sampling=scene.sampling,
            editor=editor,
            drive=edit.drive,
            shape=edit.shape,
        ),
        maxlen=0,
    )


def evaluations(scene: Scene, edit: Edit) -> list[tuple[torch.Tensor, torch.Tensor, Cond, bool]]:
    """What an edit asks of the network, evaluation by evaluation."""
    seen: list[Watched] = []

    def watch(denoise: Denoise) -> Denoise:
        seen.append(Watched(denoise))
        return seen[-1]

    walked(scene, edit, watch)
    return seen[0].asked


def bare(
    held: Model, asked: list[tuple[torch.Tensor, torch.Tensor, Cond, bool]]
) -> Callable[[], None]:
    """The same evaluations of the denoiser alone."""

    def step() -> None:
        for x, t, cond, backward in asked:
            if backward:
                given = x.clone().requires_grad_()
                torch.autograd.grad(held.denoiser(given, t, cond).x0.sum(), given)
            else:
                with torch.no_grad():
                    held.denoiser(x, t, cond)

    return step
