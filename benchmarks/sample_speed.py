"""Seconds for 1,000 pictures of the same quality from the same weights, here and in diffusers.

RUN names a run of the course's network as a DDPM; without it one is trained for MINUTES (60):

    couette train MNIST --recipe ddpm --network unet2d --data.resolution 28 --out RUN

Quality is the Fréchet distance of COUNT (200) pictures, BATCH (100) at a time, to held-out ones;
each side has drawn a batch before it is timed. The bar is what diffusers' DDPMPipeline reaches in
its 1,000 steps. Of our samplers, and of diffusers' DPM-Solver++ and DDIM, each in float32 and tuned
(bfloat16 where the machine has it; theirs in channels_last), the cheapest that gets within 5 % of
it is named. Goals: 300 times as fast as the pipeline, three times as fast as diffusers' best.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.networks import DEVICE, THREADS, low_precision, scratch
from benchmarks.timing import Apart, Goal, report
from couette import api, generate
from couette.config import DataConfig, spec
from couette.data import open_data
from couette.evaluation.judge import Judge
from couette.model import Model, sizes_of
from couette.networks import to_diffusers_config
from couette.registry import NETWORKS

COUNT = int(os.environ.get("COUNT", "200"))
BATCH = int(os.environ.get("BATCH", "100"))
STEPS = (4, 5, 6, 8, 10, 16)
OURS = (("dpmpp-2m-sde", "uniform"), ("dpmpp-2m-sde", "karras"), ("ddpm", "karras"))
THEIRS = ("DPM++ 2M Karras", "DPM++ 2M SDE", "DDIM")
SLACK = 1.05


def trained() -> Path:
    """The run to draw from."""
    given = os.environ.get("RUN")
    if given:
        return Path(given)
    out = scratch() / "run"
    minutes = float(os.environ.get("MINUTES", "60"))
    data = {"source": os.environ.get("DATA", "mnist"), "resolution": 28}
    return api.train(data, out=out, recipe="ddpm", minutes=minutes, network="unet2d").path


def twin(model: Model) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The same network for diffusers' own class: its settings and its weights."""
    settings = NETWORKS.check(model.config.network)
    return to_diffusers_config(sizes_of(model.config), settings), model.network.state_dict()


def network_of(settings: dict[str, Any], weights: dict[str, Tensor], tuned: bool) -> Any:
    """That network as diffusers builds it; tuned: in channels_last and, where the machine has units
    for it, in bfloat16."""
    from diffusers import UNet2DModel

    network = UNet2DModel(**settings)
    network.load_state_dict(weights)
    network = network.to(DEVICE).eval()
    if not tuned:
        return network
    network = network.to(memory_format=torch.channels_last)
    plain = network.forward

    def forward(*given: Any, **named: Any) -> Any:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=low_precision()):
            found = plain(*given, **named)
        found.sample = found.sample.float()
        return found

    network.forward = forward
    return network


def pipeline(
    settings: dict[str, Any], weights: dict[str, Tensor], tuned: bool
) -> Callable[[str, int, int], Tensor]:
    """Pictures by diffusers' pipelines, as (N, C, H, W) in [-1, 1]."""
    from diffusers import (
        DDIMPipeline,
        DDIMScheduler,
        DDPMPipeline,
        DDPMScheduler,
        DPMSolverMultistepScheduler,
    )

    network = network_of(settings, weights, tuned)
    table = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02}

    def draw(kind: str, steps: int, count: int) -> Tensor:
        if kind == "DDPM":
            made = DDPMPipeline(network, DDPMScheduler(**table))
        elif kind == "DDIM":
            made = DDIMPipeline(network, DDIMScheduler(**table))
        else:
            noisy = kind.endswith("SDE")
            solver = DPMSolverMultistepScheduler(
                **table,
                algorithm_type="sde-dpmsolver++" if noisy else "dpmsolver++",
                use_karras_sigmas=not noisy,
                timestep_spacing="trailing" if noisy else "linspace",
            )
            made = DDPMPipeline(network, solver)
        made.set_progress_bar_config(disable=True)
        torch.manual_seed(0)
        parts = [
            torch.from_numpy(
                made(batch_size=BATCH, num_inference_steps=steps, output_type="np").images
            )
            for _ in range(count // BATCH)
        ]
        return torch.cat(parts).permute(0, 3, 1, 2) * 2 - 1

    return draw


def drawing(model: Model) -> Callable[[str, str, int, int], Tensor]:
    """Pictures by our samplers, likewise."""

    def draw(name: str, grid: str, steps: int, count: int) -> Tensor:
        how = generate.sampling_of(model, sampler=spec(name), grid=spec(grid), steps=steps)
        asked = generate.ask(model, count)
        return torch.cat(list(generate.pictures(model, asked, batch=BATCH, sampling=how)))

    return draw


def run() -> None:
    """Draw and judge all, print the table."""
    if COUNT % BATCH:
        raise SystemExit(f"COUNT={COUNT} is no multiple of BATCH={BATCH}; give one that is.")
    folder = trained()
    torch.set_num_threads(THREADS)
    model = api.load(folder)
    source = os.environ.get("DATA", "mnist")
    data = open_data(DataConfig(source=source, resolution=model.config.height))
    if data.test is None:
        raise SystemExit("The benchmark needs data of which some are held out; set DATA.")
    judge = Judge(data.train, data.test, count=COUNT)
    rows: list[dict[str, Any]] = []

    def tried(who: str, how: str, evaluations: int, draw: Callable[[], Tensor]) -> dict[str, Any]:
        begun = time.perf_counter()
        pictures = draw()
        seconds = (time.perf_counter() - begun) * 1000 / COUNT
        distance = judge(pictures.clamp(-1, 1), None)[0].frechet
        row = {"who": who, "how": how, "evaluations": evaluations, "s per 1,000": seconds}
        rows.append({**row, "Fréchet": distance})
        return rows[-1]

    same = twin(model)
    theirs = Apart(pipeline, *same, False)
    theirs("DDPM", 2, BATCH)
    bar = tried("diffusers", "DDPM, the default", 1000, lambda: theirs("DDPM", 1000, COUNT))
    for how, draw in (("", theirs), (", tuned", Apart(pipeline, *same, True))):
        draw("DDPM", 2, BATCH)
        for kind, steps in product(THEIRS, STEPS):
            tried("diffusers", kind + how, steps, partial(draw, kind, steps, COUNT))
    for dtype in ("float32", "bfloat16")[: 1 + low_precision()]:
        ours = drawing(api.load(folder, dtype=dtype))
        ours("ddpm", "karras", 4, BATCH)
        for (name, grid), steps in product(OURS, STEPS):
            call = partial(ours, name, grid, steps, COUNT)
            tried("couette", f"{name}, {grid}, {dtype}", steps, call)
    notes: dict[str, Any] = {
        "threads": THREADS,
        "floor": judge.floor.distances.frechet,
        "count": COUNT,
    }
    best = {}
    for who in ("couette", "diffusers"):
        good = [r for r in rows[1:] if r["who"] == who and r["Fréchet"] <= SLACK * bar["Fréchet"]]
        if good:
            best[who] = min(good, key=lambda row: float(row["s per 1,000"]))
            notes[f"cheapest as good, {who}"] = f"{best[who]['how']}, {best[who]['evaluations']}"
            notes[f"times as fast as the default, {who}"] = (
                bar["s per 1,000"] / best[who]["s per 1,000"]
            )
    to_default = notes.get("times as fast as the default, couette")
    theirs_best = notes.get("times as fast as the default, diffusers")
    where = f"sampling on {'a GPU' if DEVICE == 'cuda' else 'a processor'}"
    goals = [
        Goal(f"{where}: diffusers' default", to_default, 300),
        Goal(
            f"{where}: diffusers' best",
            to_default / theirs_best if to_default and theirs_best else None,
            3,
        ),
    ]
    report("sample_speed", rows, notes, goals)
