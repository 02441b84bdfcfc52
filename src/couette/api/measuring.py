"""How good a model is, and how best to draw from it: `evaluate`, `lab`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from couette import generate
from couette.api.drawing import check_seed, load
from couette.config import RuntimeConfig, Spec
from couette.data import open_data
from couette.errors import InputError, UnknownName
from couette.evaluation import Ahead, Part, Report, write
from couette.evaluation import evaluate as measure
from couette.evaluation.encoders import (
    Measured,
    measure_autoencoder,
    measure_encoder,
    write_measured,
)
from couette.evaluation.judge import Judge
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
from couette.model import AVERAGE, Model, load_autoencoder, load_encoder, read_config
from couette.opening import data_of, home_of, is_single
from couette.runs import RunFolder, find_model
from couette.runtime import Runtime, choose
from couette.storage import check_writable
from couette.validation import parse


def evaluate(
    run: str | Path,
    data: str | Path | None = None,
    *,
    count: int | None = None,
    seed: int = 0,
    batch: int = 128,
    weights: str = "average",
    likelihood: bool = False,
    prompts: int = 200,
    device: str = "auto",
    dtype: str = "auto",
    out: str | Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
    watch: Callable[[Part | Measured], None] | None = None,
    **settings: Any,
) -> tuple[Report | Measured, list[Path]]:
    """Measure a model against held-out pictures, and write the report.

    Of an autoencoder that is how well pictures come back, of an encoder of words how often the
    right ones are found.

    Args:
        run: a run, a checkpoint, a saved model or an exact world.
        data: a data set's name or a folder; the run's own when not given.
        count: how many pictures to draw; from the size of the data when not given.
        seed, batch: of the pictures drawn.
        weights: "average", "raw" or "both": which to draw pictures with. The loss by noise level
            is always measured for all there are.
        likelihood: also measure the likelihood of held-out pictures; it is slow.
        prompts: of each kind, to see whether they are followed, where the data are `shapes` and the
            model reads words.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: "auto", "float32" or "bfloat16".
        out: where the report goes; `evaluation` in the model's folder when not given.
        progress: called with (what is being done, how much is done, of how much).
        watch: called with what is ahead, then with each part of the report as soon as it is known,
            the floor first.
        settings: as for `sample`.

    Returns:
        The report, and the files that hold it.

    Raises:
        CouetteError: what was asked does not fit the model or the data.
    """
    check_seed(seed)
    path = Path(run)
    if not is_single(path):
        kind = read_config(find_model(path)).objective.name
        if kind in ("autoencoder", "contrastive"):
            asked = {"count": count, "likelihood": likelihood or None, **settings}
            idle = [name for name, value in asked.items() if value is not None]
            if idle:
                raise InputError(
                    f"{run} draws nothing: {' and '.join(idle)} would do nothing; leave that out."
                )
            what = {"device": device, "dtype": dtype}
            runtime = choose(parse(RuntimeConfig, what, "the arguments of evaluate"))
            return _encoder(path, kind, data, weights, runtime, out, progress, watch)
    models = _weights_of(path, device, dtype)
    drawn = {"average": list(models)[-1:], "raw": ["weights"], "both": list(models)}
    if weights not in drawn:
        raise UnknownName("choice of weights", weights, drawn)
    where = Path(out) if out else home_of(path) / "evaluation"
    check_writable(where)
    first = models["weights"]
    sampling = generate.sampling_of(first, **settings)
    source = data_of(path, first.config, data, f"couette eval {run} NEWPATH")
    readable = source.source == "shapes" and first.conditioner.words is not None
    if watch:
        opened = f"First the data {source.source} are opened."
        watch(Ahead(sentence=f"On a processor this can take minutes. {opened}"))
    report = measure(
        models,
        open_data(source, progress, others=data is not None),
        count=count,
        seed=seed,
        batch=batch,
        sampling=sampling,
        draw=drawn[weights],
        likelihood=likelihood,
        prompts=prompts if readable else 0,
        progress=progress,
        watch=watch,
    )
    return report, write(report, where)


def _encoder(
    path: Path,
    kind: str,
    data: str | Path | None,
    weights: str,
    runtime: Runtime,
    out: str | Path | None,
    progress: Callable[[str, int, int], None] | None,
    watch: Callable[[Part | Measured], None] | None,
) -> tuple[Measured, list[Path]]:
    """`evaluate` for models that draw nothing."""
    where = Path(out) if out else home_of(path) / "evaluation"
    check_writable(where)
    folder, average = find_model(path), weights != "raw"
    described = read_config(folder)
    source = data_of(path, described, data, f"couette eval {path} NEWPATH")
    splits = open_data(source, progress, others=data is not None)
    if kind == "autoencoder":
        _, network = load_autoencoder(folder, average=average, runtime=runtime)
        found = measure_autoencoder(network, splits, runtime, progress)
    else:
        _, clip, tokenizer = load_encoder(folder, average=average, runtime=runtime)
        length = described.text.length
        found = measure_encoder(clip, tokenizer, length, splits, runtime, progress)
    if watch:
        watch(found)
    return found, write_measured(found, where)


def lab(
    run: str | Path,
    *,
    samplers: Sequence[Spec | str] = (),
    grids: Sequence[Spec | str] = (),
    steps: Sequence[int] = (2, 4, 6, 9, 14, 20, 36),
    search: Sequence[int] = (),
    count: int = 32,
    frechet: int = 0,
    guidance: float | Sequence[float] | None = None,
    label: int | str | Sequence[int | str] | None = None,
    seed: int = 0,
    batch: int = 64,
    evaluations: int | None = None,
    store: bool = False,
    device: str = "auto",
    dtype: str = "auto",
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
        guidance: a scale of guidance, or several, each in turn; the model's own when not given.
        label: as for `sample`; every class in turn when not given.
        seed, batch: of the pictures drawn.
        evaluations: the winner may take at most so many.
        store: make the winner the run's own way to draw.
        device: "auto", "cpu", "cuda" or "mps".
        dtype: "auto", "float32" or "bfloat16".
        out: where results and figures go; `lab` in the model's folder when not given.
        progress: called with (what is being done, how much is done, of how much).
        watch: called with each outcome as soon as it is known.

    Returns:
        All outcomes, and the figures.

    Raises:
        CouetteError: what was asked does not fit the model or the data; before anything is drawn.
    """
    check_seed(seed)
    path = Path(run)
    if store and not RunFolder(path).exists():
        raise InputError(f"Only a run keeps a way to draw; {path} is none. Leave out --store.")
    model = load(path, device=device, dtype=dtype)
    scales = [guidance] if isinstance(guidance, int | float) else list(guidance or ())
    for scale in scales:
        generate.guided(model, generate.sampling_of(model, guidance=scale), 1)
    sampling = generate.sampling_of(model, guidance=scales[0] if scales else None)
    asked = generate.in_turn(model, count) if label is None else generate.ask(model, count, label)
    chosen = [_spec(each) for each in samplers]
    folder = Path(out) if out else home_of(path) / "lab"
    check_writable(folder)
    bench = Bench(model, asked, seed=seed, batch=batch, sampling=sampling, progress=progress)
    tried = planned(bench, chosen, [_spec(each) for each in grids], steps, scales)
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
    moved = f"couette train NEWPATH --resume --out {path}"
    train, test = open_data(data_of(path, model.config, None, moved), progress)
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


def _weights_of(path: Path, device: str, dtype: str) -> dict[str, Model]:
    """The raw weights of a model, and their average where there is one."""
    if is_single(path):
        return {"weights": load(path, device=device, dtype=dtype)}
    models = {"weights": load(path, average=False, device=device, dtype=dtype)}
    if (find_model(path) / AVERAGE).exists():
        models["average"] = load(path, device=device, dtype=dtype)
    return models
