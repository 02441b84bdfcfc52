"""couette sample: pictures from a trained model."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Literal

import tyro

from couette import api, generate
from couette.api.drawing import check_seed
from couette.cli.asking import parse_call
from couette.cli.notes import heard
from couette.cli.options import DRAWING, normal_flags, spec_of, told
from couette.cli.pictures import Drawing, digest_of, written
from couette.config import SamplingConfig
from couette.errors import InputError
from couette.exact import with_schedule
from couette.model import AVERAGE
from couette.opening import is_single
from couette.runs import find_model

Format = Literal["grid", "png", "npz", "gif"]


def run(arguments: list[str]) -> int:
    return parse_call(sample, "sample", normal_flags(arguments, aliases=DRAWING), told(DRAWING))


def sample(
    model: tyro.conf.Positional[Path],
    /,
    *,
    count: int = 16,
    label: str | None = None,
    prompt: tuple[str, ...] | None = None,
    toward: str | None = None,
    weight: tuple[float, ...] | None = None,
    negative: str | None = None,
    schedule: str | None = None,
    guidance: float | None = None,
    sampler: str | None = None,
    guider: tuple[str, ...] | None = None,
    grid: str | None = None,
    steps: int | None = None,
    threshold: str | None = None,
    reuse: int | None = None,
    enlarge: str | None = None,
    seed: int = 0,
    batch: int = 64,
    out: Path | None = None,
    format: Format = "grid",
    weights: Literal["average", "raw"] = "average",
    metadata: bool = True,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Draw pictures from a trained model.

    Args:
        model: a run, a checkpoint, a saved model, an exact world (exact:digits, exact:FOLDER), or a
            model in diffusers' layout: a folder, or owner/name of the Hugging Face hub.
        count: how many pictures.
        label: a class by name or number, or "each" for every class in turn.
        prompt: words, for a model that was trained on captions; several are taken in turn.
        toward: words to go part of the way to, from those of the prompt.
        weight: how much of the way, 0 to 1, half when not given; several are taken in turn.
        negative: words to lead away from.
        schedule: of an exact world; a trained model has its own.
        guidance: guidance scale; 1 is off, 0 the unconditional. The model's own when not given,
            which is said with the pictures unless it is off.
        guider: methods of guidance, each laid over the one before it, as in interval:low=0.2
            apg:momentum=-0.5 (see `couette list guiders`).
        sampler: a sampler, with settings as in ddim:eta=0.5 (see `couette list samplers`).
        grid: where the steps lie, as in karras:rho=5.
        steps: how many steps.
        threshold: what keeps each prediction in the pictures' range: none, static, or
            dynamic:percentile=0.995.
        reuse: evaluations that share the network's coarse features: faster, slightly other
            pictures; 1 shares nothing.
        enlarge: a model that was trained to enlarge what this one draws, such as DeepFloyd IF's
            second stage.
        seed: picture i of a seed is the same at any batch size, but for rounding.
        batch: how many are drawn at once.
        out: a file (grid, npz, gif) or a folder (png); in the run's folder when not given.
        format: one sheet, a file each, an array, or the reverse process in motion.
        weights: the running average of the weights, or the raw ones.
        metadata: write the settings into PNGs.
        device: auto, cpu, cuda or mps.
        dtype: arithmetic; auto is bfloat16 on GPUs that have it, else float32. Processors with
            units for bfloat16 are up to twice as fast in it, and round more.
        as_json: one JSON object on stdout.
    """
    begun = time.monotonic()
    check_seed(seed)
    if schedule is not None:
        model = Path(with_schedule(model, schedule))
    with heard() as notes:
        held = api.load(model, average=weights == "average", device=device, dtype=dtype)
        sampling = generate.sampling_of(
            held,
            guidance=guidance,
            negative=negative,
            guider=None if guider is None else tuple(map(spec_of, guider)),
            sampler=None if sampler is None else spec_of(sampler),
            grid=None if grid is None else spec_of(grid),
            steps=steps,
            threshold=None if threshold is None else spec_of(threshold),
            reuse=reuse,
        )
        if batch < 1:
            raise InputError(f"A batch holds at least one picture, not {batch}.")
        asked = generate.ask(held, count, label, sampling, prompt, toward, weight)
        second = None if enlarge is None else api.load(enlarge, device=device, dtype=dtype)
        enlarged = None if second is None else digest_of(second.network)
        drawing = Drawing(held, sampling, seed, *weights_of(model, weights), enlarged)
        paths = written(drawing, asked, model, out, format, batch, metadata, second=second)
    report(paths, count, seed, sampling, time.monotonic() - begun, notes, as_json)
    return 0


def weights_of(model: Path, asked: str) -> tuple[str | None, str | None]:
    """Which weights are drawn with, and which where nothing is asked: without an average the raw
    ones."""
    if is_single(model):
        return None, None
    if (find_model(model) / AVERAGE).exists():
        return asked, "average"
    return "raw", "raw"


def report(
    paths: list[Path],
    count: int,
    seed: int,
    sampling: SamplingConfig,
    seconds: float,
    notes: list[str],
    as_json: bool,
) -> None:
    how = generate.said(sampling)
    if as_json:
        fields = {"paths": [str(p) for p in paths], "count": count, "seed": seed, "drawn": how}
        print(json.dumps({**fields, "seconds": round(seconds, 2), "notes": notes}))
        return
    where = paths[0] if len(paths) == 1 else paths[0].parent
    print(f"{count} pictures, seed {seed}, in {seconds:.1f} s: {where}")
    print(f"    Drawn with {how}.")
