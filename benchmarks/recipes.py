"""What helps and what does not: variants of the default recipe, trained for equally long.

DATA is MNIST's folder, or any other that the recipe takes, at its own resolution or at RESOLUTION.
The recipe itself trains for STEPS (160) of the batch that it takes where time is not short; each
variant for as many as take equally long, by their steps timed in turn, so that what else the
machine does weighs on both. COUNT (500) pictures of the averaged weights are judged, drawn as the
recipe draws, on one thread. SEEDS (0) are trained each; ONLY names variants, parted by semicolons.
Rows are appended to LOG (recipes.jsonl), and those that stand there are not done again: it may be
stopped at any time.
"""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path
from typing import Any

import torch

from benchmarks.networks import session, steps_of
from benchmarks.timing import Case, interleaved, ratio, report
from couette import generate
from couette.config import spec
from couette.evaluation.judge import Judge
from couette.recipes import Session
from couette.runtime import evaluating
from couette.training import PowerAverage

DATA = Path(os.environ.get("DATA", "mnist"))
RESOLUTION = int(os.environ.get("RESOLUTION", "0")) or None
STEPS = int(os.environ.get("STEPS", "160"))
COUNT = int(os.environ.get("COUNT", "500"))
SEEDS = tuple(int(each) for each in os.environ.get("SEEDS", "0").split(","))
ONLY = tuple(filter(None, os.environ.get("ONLY", "").split(";")))
LOG = Path(os.environ.get("LOG", "recipes.jsonl"))
WIDTHS = (0.04, 0.12, 0.2)
"""Averages that are kept beside the recipe's own, from the same run."""

_TIMED = 5
"""Steps of each that are timed in turn."""

TINY = {"name": "unet", "size": "tiny"}
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    # What is predicted, and how errors weigh.
    "v, cosine": {
        "diffusion": {
            "schedule": spec("cosine"),
            "parameterization": spec("v"),
            "times": spec("uniform"),
        }
    },
    "v, cosine, min-SNR": {
        "diffusion": {
            "schedule": spec("cosine"),
            "parameterization": spec("v"),
            "times": spec("uniform"),
            "weighting": spec("min-snr", gamma=5.0),
        }
    },
    "eps, linear": {
        "diffusion": {
            "schedule": spec("linear"),
            "parameterization": spec("eps"),
            "told": spec("index"),
            "times": spec("uniform"),
        }
    },
    "flow": {
        "diffusion": {
            "schedule": spec("flow"),
            "parameterization": spec("flow"),
            "told": spec("time"),
            "times": spec("logit-normal"),
        }
    },
    "all errors as they are": {"diffusion": {"weighting": spec("uniform")}},
    "immiscible": {"diffusion": {"pairing": spec("immiscible")}},
    "strata": {"diffusion": {"strata": 128}},
    # Where the noise levels lie.
    "EDM's own levels": {"diffusion": {"times": spec("log-normal", mean=-1.2, std=1.2)}},
    "lower levels": {"diffusion": {"times": spec("log-normal", mean=-0.4, std=1.0)}},
    "higher levels": {"diffusion": {"times": spec("log-normal", mean=0.4, std=1.0)}},
    "wider levels": {"diffusion": {"times": spec("log-normal", mean=0.0, std=1.4)}},
    # How the weights move.
    "AdamW": {"training": {"optimizer": "adamw"}},
    "AdamW, 1e-3": {"training": {"optimizer": "adamw", "lr": 1e-3}},
    "muon 0.01": {"training": {"muon_lr": 0.01}},
    "muon 0.04": {"training": {"muon_lr": 0.04}},
    "lr halved": {"training": {"lr": 2e-3}},
    "lr doubled": {"training": {"lr": 8e-3}},
    "cosine decay": {"training": {"decay": "cosine"}},
    "no decay": {"training": {"decay": "constant"}},
    "batch 16": {"training": {"batch": 16}},
    "batch 32": {"training": {"batch": 32}},
    "batch 64": {"training": {"batch": 64}},
    "batch 256": {"training": {"batch": 256}},
    # More than one at once.
    "batch 32, all errors as they are": {
        "training": {"batch": 32},
        "diffusion": {"weighting": spec("uniform")},
    },
    "batch 32, lower levels": {
        "training": {"batch": 32},
        "diffusion": {"times": spec("log-normal", mean=-0.4, std=1.0)},
    },
    # The network.
    "width 48": {"network": {**TINY, "width": 48}},
    "width 96": {"network": {**TINY, "width": 96}},
    "two blocks": {"network": {**TINY, "blocks": 2}},
    "three levels": {"network": {**TINY, "multiples": (1, 2, 4)}},
    "no attention": {"network": {**TINY, "attention": 0}},
    "patch 1": {"network": {**TINY, "patch": 1, "width": 32, "multiples": (1, 2, 4)}},
    "patch 4": {"network": {**TINY, "patch": 4, "width": 128, "multiples": (1,)}},
    "dropout": {"network": {**TINY, "dropout": 0.1}},
    # The data.
    "shifts": {"data": {"crop": 2}},
    "labels hidden 20 %": {"diffusion": {"drop": 0.2}},
}


def run() -> None:
    """Train and judge what is not in the log yet, print the table."""
    torch.set_num_threads(1)
    chosen = {name: each for name, each in VARIANTS.items() if name in ONLY or not ONLY}
    done = {(row["variant"], row["seed"]) for row in _logged()}
    judge: Judge | None = None
    for seed in SEEDS:
        for name, settings in chosen.items():
            if (name, seed) in done:
                continue
            cost = _cost(settings)
            prepared = _prepared(settings, seed, round(STEPS / cost))
            if judge is None:
                data = prepared.data
                judge = Judge(data.train, data.test or data.train, count=COUNT)
            for row in _tried(name, seed, cost, prepared, judge):
                with LOG.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    notes = {"steps": STEPS, "count": COUNT, "data": str(DATA)}
    floor = {} if judge is None else {"floor": judge.floor.distances.frechet}
    report("recipes", _summed(), {**notes, **floor})


def _logged() -> list[dict[str, Any]]:
    if not LOG.exists():
        return []
    rows = map(json.loads, LOG.read_text(encoding="utf-8").splitlines())
    asked = {"steps": STEPS, "data": str(DATA), "resolution": RESOLUTION}
    return [row for row in rows if all(row.get(name) == each for name, each in asked.items())]


def _prepared(settings: dict[str, Any], seed: int, steps: int) -> Session:
    training = {"minutes": None, "seed": seed, **settings.get("training", {}), "steps": steps}
    data = {"resolution": RESOLUTION, **settings.get("data", {})}
    runtime = {"mode": "safe", "threads": 1}
    given = {"runtime": runtime, **settings, "data": data, "training": training}
    return session(DATA, steps=steps, **given)


def _cost(settings: dict[str, Any]) -> float:
    """How many times as long a step of a variant takes as one of the recipe itself."""
    if not settings:
        return 1.0
    cases = [Case("", steps_of(_prepared(each, 0, 1000))) for each in ({}, settings)]
    interleaved(cases, _TIMED, warm=2)
    return ratio(*cases)[0]


def _tried(name: str, seed: int, cost: float, made: Session, judge: Judge) -> list[dict[str, Any]]:
    """A row for the recipe's average, and where the recipe is the default one for each width."""
    trainer = made.trainer
    network = made.models["weights"].network
    plain = name == "default"
    averages = {width: PowerAverage(network, width) for width in WIDTHS if plain}
    for progress in trainer.run():
        for average in averages.values():
            average.update(torch.tensor(progress.step), progress.applied)
    about = {
        "seed": seed,
        "steps": STEPS,
        "cost": cost,
        "data": str(DATA),
        "resolution": RESOLUTION,
        "pictures": trainer.step * made.config.training.batch,
    }
    rows = [{"variant": name, **about, **_judged(made, "average", judge)}]
    if plain:
        rows.append({"variant": "no average", **about, **_judged(made, "weights", judge)})
    kept = made.models["average"].network
    for width, average in averages.items():
        kept.load_state_dict(average.network.state_dict())
        rows.append({"variant": f"average {width:g}", **about, **_judged(made, "average", judge)})
    return rows


def _judged(made: Session, which: str, judge: Judge) -> dict[str, Any]:
    model = made.models[which]
    asked = generate.in_turn(model, COUNT)
    with evaluating(model.network):
        drawn = torch.cat(list(generate.pictures(model, asked, batch=100)))
    labels = torch.tensor([each.label or 0 for each in asked])
    distances, judged = judge(drawn, labels if asked[0].label is not None else None)
    return {
        "frechet": distances.frechet,
        "coverage": distances.coverage,
        "as asked": judged.accuracy if judged else None,
    }


def _summed() -> list[dict[str, Any]]:
    """The log as a table: means over seeds, the best distance first."""
    rows = _logged()
    table = []
    for name in dict.fromkeys(row["variant"] for row in rows):
        same = [row for row in rows if row["variant"] == name]
        distances = [row["frechet"] for row in same]
        table.append(
            {
                "variant": name,
                "Fréchet": statistics.mean(distances),
                "spread": statistics.stdev(distances) if len(same) > 1 else None,
                "coverage": statistics.mean(row["coverage"] for row in same),
                "cost of a step": statistics.median(row["cost"] for row in same),
                "as asked": statistics.mean(row["as asked"] or 0.0 for row in same),
                "pictures": round(statistics.mean(row["pictures"] for row in same)),
                "seeds": len(same),
            }
        )
    return sorted(table, key=lambda row: float(row["Fréchet"]))
