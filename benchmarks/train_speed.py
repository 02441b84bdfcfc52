"""Training speed at equal work: our network and diffusers' UNet2DModel, both 0.6 GFLOP a picture.

Every case is a whole training step at batch 128 on 28×28 gray pictures: data, noise, forward,
backward, optimizer, and for ours the running average and the log of noise levels. diffusers is
timed as its course trains it (float32, contiguous, Adam) and with what it offers to be faster
(channels_last; bfloat16 where the processor has it; with COMPILE=1 compiled, too). Goals: four
times the former, twice the latter.
"""

from __future__ import annotations

import os

import torch
from torch import nn

from benchmarks.networks import (
    SIDE,
    data_folder,
    diffusers_course,
    diffusers_steps,
    forward_flops,
    session,
    steps_of,
)
from benchmarks.timing import Case, interleaved, ratio, report

BATCH = 128
ROUNDS = int(os.environ.get("ROUNDS", "7"))


def peak(dtype: torch.dtype, layout: torch.memory_format) -> float:
    """GFLOP a second of a 3×3 convolution of 64 channels on 14×14 maps, forward."""
    layer = nn.Conv2d(64, 64, 3, padding=1).to(dtype).to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.randn(BATCH, 64, 14, 14).to(dtype).contiguous(memory_format=layout)
    with torch.no_grad():
        case = Case("", lambda: layer(x), 2 * 9 * 64 * 64 * 14 * 14 * BATCH / 1e9)
        interleaved([case], 9, 3)
    return case.speed


def run() -> None:
    """Time all, print the table."""
    able = torch.cpu.get_capabilities()
    bf16 = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    folder = data_folder(4096)
    runs = {
        "ours, 0.6 GFLOP": session(
            folder, network={"name": "unet", "size": "base"}, training={"batch": BATCH}
        ),
        "ours, AdamW": session(
            folder,
            network={"name": "unet", "size": "base"},
            training={"batch": BATCH, "optimizer": "adamw"},
        ),
        "our UNet2D": session(folder, recipe="course-unet", training={"batch": BATCH}),
    }
    if os.environ.get("COMPILE"):
        runs["ours, compiled"] = session(
            folder,
            network={"name": "unet", "size": "base"},
            training={"batch": BATCH},
            runtime={"compile": "on"},
        )
    x, told = torch.zeros(1, 1, SIDE, SIDE), torch.zeros(1)
    cases = []
    for name, each in runs.items():
        network = each.models["weights"].network
        cond = {"label": torch.zeros(1, dtype=torch.int64)} if "label" in network.wants else {}
        facts = {"GFLOP": forward_flops(network, x, told, cond) / 1e9, "how": each.runtime.what}
        cases.append(Case(name, steps_of(each), BATCH, facts))
    pictures = torch.rand(4096, 1, SIDE, SIDE)
    last, plain = torch.channels_last, torch.contiguous_format
    variants = {
        "diffusers, as published": (plain, False),
        "diffusers, channels_last": (last, False),
    }
    if bf16:
        variants["diffusers, bfloat16"] = (last, True)
    for name, (layout, low) in variants.items():
        network = diffusers_course()
        facts = {"GFLOP": forward_flops(network, x, 0) / 1e9}
        step = diffusers_steps(network, pictures, BATCH, layout=layout, bf16=low)
        cases.append(Case(name, step, BATCH, facts))
    if os.environ.get("COMPILE"):
        network = diffusers_course()
        network.compile()
        step = diffusers_steps(network, pictures, BATCH, layout=last, bf16=bf16)
        cases.append(Case("diffusers, compiled", step, BATCH, {"GFLOP": cases[-1].facts["GFLOP"]}))
    interleaved(cases, ROUNDS, warm=2)
    published = next(case for case in cases if case.name.endswith("published"))
    tuned = max((case for case in cases if "diffusers" in case.name), key=lambda case: case.speed)
    peaks = {"float32": peak(torch.float32, last)}
    if bf16:
        peaks["bfloat16"] = peak(torch.bfloat16, last)
    rows = []
    for case in cases:
        work = 3 * case.facts["GFLOP"] * case.speed
        rows.append(
            {
                "case": case.name,
                "GFLOP": case.facts["GFLOP"],
                "pictures/s": case.speed,
                "spread": case.spread,
                "GFLOP/s": work,
                "of peak": work / max(peaks.values()),
                "to published": ratio(case, published)[0],
                "±": ratio(case, published)[1],
                "to tuned": ratio(case, tuned)[0],
                "how": case.facts.get("how"),
            }
        )
    notes = {f"peak {name}, GFLOP/s": value for name, value in peaks.items()}
    report("train_speed", rows, {"threads": torch.get_num_threads(), **notes})
