"""The façade that `import couette` offers: the commands' words as functions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from couette import generate
from couette.config import DataConfig, RunConfig, RuntimeConfig, Spec, parse
from couette.contracts import Step
from couette.data import POINTS, open_data
from couette.errors import InputError, UnknownName
from couette.evaluation import Part, Report, write
from couette.evaluation import evaluate as measure
from couette.evaluation.judge import Judge
from couette.exact import folder_of, is_exact, named
from couette.laboratory import (
    Bench,
    Outcome,
    Results,
    carry_out,
    draw_lab,
    measured_on,
    planned,
    searched,
)
from couette.model import AVERAGE, Model
from couette.recipes import RECIPES, Event, Session
from couette.runs import RunFolder, find_model
from couette.runtime import choose
from couette.storage import check_writable

Given = Mapping[str, Any]
_COLORS = {1: "gray", 3: "rgb"}


@dataclass(frozen=True)
class Run:
    """A finished training run."""

    path: Path
    config: RunConfig
    step: int


def train(
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    recipe: str | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    minutes: float | None = None,
    seed: int | None = None,
    resume: bool = False,
    watch: Callable[[Event], None] | None = None,
    **settings: Given | Spec | str,
) -> Run:
    """Train a model.

    Args:
        data: a data set's name or a folder; the recipe's own when not given.
        out: the run's folder; a new one under `runs/` when not given.
        recipe: a recipe's name; chosen by the data when not given.
        steps, epochs, minutes: the length, one of them; the recipe's when not given.
        seed: of weights, order, noise.
        resume: go on with the run in `out`.
        watch: called with every event: progress, grids, checkpoints, notes.
        settings: groups of a `RunConfig`, as `training={"lr": 3e-4}` or `network="unet:width=64"`.

    Raises:
        CouetteError: what was asked can't be done, or the run could not be finished.
    """
    session = begin(
        data,
        out=out,
        recipe=recipe,
        length={"steps": steps, "epochs": epochs, "minutes": minutes},
        seed=seed,
        resume=resume,
        settings=settings,
    )
    for event in session.run():
        if watch is not None:
            watch(event)
    return Run(session.folder.path, session.config, session.trainer.step)


def begin(
    data: str | Path | None = None,
    *,
    out: str | Path | None = None,
    recipe: str | None = None,
    length: Given | None = None,
    seed: int | None = None,
    resume: bool = False,
    settings: Mapping[str, Given | Spec | str] | None = None,
) -> Session:
    """Prepare a run without starting it; arguments as for `train`.

    Raises:
        CouetteError: what was asked can't be done; nothing was written.
    """
    if resume:
        if out is None:
            raise InputError("To resume, say which run: --out RUN --resume.")
        config = RunFolder(Path(out)).config()
        if recipe is not None and recipe != config.recipe:
            raise InputError(
                f"{out} was begun with the recipe '{config.recipe}', not '{recipe}'; leave "
                "--recipe out to go on with it."
            )
    else:
        config = recipe_config(recipe, None if data is None else str(data))
    if settings:
        config = config.replace(**settings)
    if data is not None:
        config = config.replace(data={"source": str(data)})
    if seed is not None:
        config = config.replace(training={"seed": seed})
    config = with_length(config, length or {})
    return Session(config, Path(out) if out else new_folder(config), resume=resume)


def recipe_config(recipe: str | None, data: str | None) -> RunConfig:
    """The settings of a recipe; without a name, the one that the data suggest.

    Raises:
        UnknownName: no such recipe; the nearest is named.
    """
    if recipe is None:
        recipe = "points" if data in POINTS else "default"
        recipe = data if data is not None and data in RECIPES else recipe
    config: RunConfig = RECIPES[recipe]()
    return config if data is None else config.replace(data={"source": data})


def with_length(config: RunConfig, length: Given) -> RunConfig:
    """The settings with the length asked for in place of the recipe's.

    Raises:
        InputError: more than one length was asked for.
    """
    given = {name: value for name, value in length.items() if value is not None}
    if len(given) > 1:
        words = " and ".join(f"--{name}" for name in given)
        raise InputError(f"{words} contradict each other; give one of them.")
    if not given:
        return config
    return config.replace(training={"steps": None, "epochs": None, "minutes": None, **given})


def new_folder(config: RunConfig) -> Path:
    """The first folder under `runs/` that is free, named after the data and the recipe."""
    name = Path(config.data.source).name or "run"
    if config.recipe not in ("default", name):
        name = f"{name}-{config.recipe}"
    path, number = Path("runs") / name, 1
    while path.exists():
        number += 1
        path = Path("runs") / f"{name}-{number}"
    return path


def load(
    path: str | Path, *, average: bool = True, device: str = "auto", dtype: str = "auto"
) -> Model:
    """Load the model of a run, a checkpoint or a saved model, or make one of an exact world.

    The model of a run draws as the run's `config.yaml` says now; another as it was saved.

    Args:
        path: the folder, or a world as `exact:digits` (see `couette.exact`).
        average: the running average of the weights; False for the raw ones.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: "auto", "float32" or "bfloat16".

    Raises:
        CheckpointError: nothing to load there, or it is damaged; other CouetteErrors as they fit.
    """
    asked = parse(RuntimeConfig, {"device": device, "dtype": dtype}, "the arguments of load")
    return generate.open_model(path, average=average, runtime=choose(asked))


def sample(
    model: Model | str | Path,
    *,
    count: int = 16,
    label: int | str | Sequence[int | str] | None = None,
    seed: int = 0,
    batch: int = 64,
    **settings: Any,
) -> Tensor:
    """Draw pictures.

    Args:
        model: a loaded model, or what `load` takes.
        count: how many.
        label: a class by name or number for all, "each" for every class in turn, one per
            picture, or None for anything.
        seed: picture i of a seed is the same at any batch size.
        batch: how many are drawn at once.
        settings: `guidance`, `guider`, `sampler`, `steps`, `grid`, `threshold`, `passes`, as in
            `SamplingConfig`; the model's own when not given.

    Returns:
        (count, C, H, W) float32 in [-1, 1] on the CPU; points as (count, 2, 1, 1).

    Raises:
        InputError: what was asked does not fit the model.
    """
    held = model if isinstance(model, Model) else load(model)
    sampling = generate.sampling_of(held, **settings)
    asked = generate.ask(held, count, label, sampling)
    return torch.cat(
        list(generate.pictures(held, asked, seed=seed, batch=batch, sampling=sampling))
    )


def steps(
    model: Model | str | Path,
    *,
    count: int = 16,
    label: int | str | Sequence[int | str] | None = None,
    seed: int = 0,
    **settings: Any,
) -> Iterator[Step]:
    """Draw one batch step by step: a generator of Steps. Arguments as for `sample`."""
    held = model if isinstance(model, Model) else load(model)
    sampling = generate.sampling_of(held, **settings)
    asked = generate.ask(held, count, label, sampling)
    return generate.steps(held, asked, seed=seed, sampling=sampling)


def evaluate(
    run: str | Path,
    data: str | Path | None = None,
    *,
    count: int | None = None,
    seed: int = 0,
    batch: int = 128,
    weights: str = "average",
    likelihood: bool = False,
    device: str = "auto",
    out: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    watch: Callable[[Part], None] | None = None,
    **settings: Any,
) -> tuple[Report, list[Path]]:
    """Measure a model against held-out pictures, and write the report.

    Args:
        run: a run, a checkpoint, a saved model or an exact world.
        data: a data set's name or a folder; the run's own when not given.
        count: how many pictures to draw; from the size of the data when not given.
        seed, batch: of the pictures drawn.
        weights: "average", "raw" or "both": which to draw pictures with. The loss by noise level
            is always measured for all there are.
        likelihood: also measure the likelihood of held-out pictures; it is slow.
        device: "auto", "cpu", "cuda" or "mps".
        out: where the report goes; `evaluation` in the model's folder when not given.
        progress: called with (what is being done, how much is done, of how much).
        watch: called with each part of the report as soon as it is known, the floor first.
        settings: as for `sample`.

    Returns:
        The report, and the files that hold it.

    Raises:
        CouetteError: what was asked does not fit the model or the data.
    """
    path = Path(run)
    models = _weights_of(path, device)
    drawn = {"average": list(models)[-1:], "raw": ["weights"], "both": list(models)}
    if weights not in drawn:
        raise UnknownName("choice of weights", weights, drawn)
    where = Path(out) if out else folder_of(path) / "evaluation"
    check_writable(where)
    first = models["weights"]
    sampling = generate.sampling_of(first, **settings)
    report = measure(
        models,
        open_data(_data_of(path, first, data), progress),
        count=count,
        seed=seed,
        batch=batch,
        sampling=sampling,
        draw=drawn[weights],
        likelihood=likelihood,
        progress=progress,
        watch=watch,
    )
    return report, write(report, where)


def lab(
    run: str | Path,
    *,
    samplers: Sequence[Spec | str] = (),
    grids: Sequence[Spec | str] = (),
    steps: Sequence[int] = (2, 4, 6, 9, 14, 20, 36),
    search: Sequence[int] = (),
    count: int = 32,
    frechet: int = 0,
    guidance: float | None = None,
    label: int | str | Sequence[int | str] | None = None,
    seed: int = 0,
    batch: int = 64,
    evaluations: int | None = None,
    store: bool = False,
    device: str = "auto",
    out: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    watch: Callable[[Outcome], None] | None = None,
) -> tuple[Results, list[Path]]:
    """Compare samplers, grids and numbers of steps on one model, from the same noise.

    Outcomes are kept as they come: called again with the same arguments it goes on where it was.

    Args:
        run: a run, a checkpoint or a saved model.
        samplers: which; all that fit the model when empty.
        grids: which; the model's own when empty.
        steps: how many, each in turn.
        search: numbers of steps to find a grid for; those are tried beside the others.
        count: pictures whose error against a fine solution is measured.
        frechet: samples for the Fréchet distance from held-out pictures; 0 leaves it out.
        guidance: classifier-free guidance scale; the model's own when not given.
        label: as for `sample`; every class in turn when not given.
        seed, batch: of the pictures drawn.
        evaluations: the winner may take at most so many.
        store: make the winner the run's own way to draw.
        device: "auto", "cpu", "cuda" or "mps".
        out: where results and figures go; `lab` in the model's folder when not given.
        progress: called with (what is being done, how much is done, of how much).
        watch: called with each outcome as soon as it is known.

    Returns:
        All outcomes, and the figures.

    Raises:
        CouetteError: what was asked does not fit the model or the data; before anything is drawn.
    """
    path = Path(run)
    if store and not RunFolder(path).exists():
        raise InputError(f"Only a run keeps a way to draw; {path} is none. Leave out --store.")
    model = load(path, device=device)
    sampling = generate.sampling_of(model, guidance=guidance)
    asked = generate.in_turn(model, count) if label is None else generate.ask(model, count, label)
    chosen = [_spec(each) for each in samplers]
    folder = Path(out) if out else folder_of(path) / "lab"
    check_writable(folder)
    bench = Bench(model, asked, seed=seed, batch=batch, sampling=sampling)
    tried = planned(bench, chosen, [_spec(each) for each in grids], steps)
    if frechet:
        bench.judge = _judge(path, model, frechet, seed, progress)
    results = Results(folder, measured_on(model, bench))
    tried += searched(bench, chosen, search)
    carry_out(bench, tried, results, progress, watch)
    floor = bench.judge.floor.distances.frechet if bench.judge else None
    figures = draw_lab(results, folder, floor)
    best = results.best(evaluations)
    if store and best is not None:
        winner = next(trial for trial in tried if str(trial) == best.trial)
        run_folder = RunFolder(path)
        kept = winner.sampling(run_folder.config().sampling)
        run_folder.write_config(run_folder.config().replace(sampling=kept.model_dump()))
    return results, figures


def _judge(
    path: Path,
    model: Model,
    count: int,
    seed: int,
    progress: Callable[[str, int, int], None] | None,
) -> Judge:
    """The judge of `count` samples of a run's model, asked for every class in turn."""
    train, test = open_data(_data_of(path, model, None), progress)
    if test is None or not 2 <= count <= len(train):
        raise InputError(
            f"{count} samples can't be compared with '{train.name}': give --frechet 2 to "
            f"{len(train):,}, and data of which some are held out."
        )
    alike = bool(model.conditioner.classes) and train.classes == model.conditioner.classes
    return Judge(
        train,
        test,
        count=count,
        seed=seed,
        alike=alike,
        runtime=model.denoiser.runtime,
        progress=progress,
    )


def _spec(part: Spec | str) -> Spec:
    return Spec.model_validate(part) if isinstance(part, str) else part


def _weights_of(path: Path, device: str) -> dict[str, Model]:
    """The raw weights of a model, and their average where there is one."""
    if is_exact(path):
        return {"weights": load(path, device=device)}
    models = {"weights": load(path, average=False, device=device)}
    if (find_model(path) / AVERAGE).exists():
        models["average"] = load(path, device=device)
    return models


def _data_of(path: Path, model: Model, data: str | Path | None) -> DataConfig:
    """The data a model is measured against: its run's own, or others brought to its size.

    Raises:
        InputError: a saved model without a run, and no data named.
    """
    held = model.config
    if is_exact(path) and data is None:
        return named(path).data
    runs = [RunFolder(each) for each in (path, path.resolve().parent.parent)]
    config = next((each.config().data for each in runs if each.exists()), None)
    if data is None:
        if config is None:
            raise InputError(f"{path} is a model without its run; say which data to measure with.")
        return config
    base = config or DataConfig()
    if model.is_points:
        return base.model_copy(update={"source": str(data)})
    size = {"resolution": (held.height, held.width), "color": _COLORS.get(held.channels, "auto")}
    return base.model_copy(update={"source": str(data), **size})
