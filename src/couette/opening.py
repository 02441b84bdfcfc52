"""What a path means: the model of a run, a checkpoint, an exact world or another library, and
models to guide by."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from operator import attrgetter
from pathlib import Path
from typing import Any

from couette import interop
from couette.conditioners import Tokenizes
from couette.config import DataConfig, ModelConfig, PretrainedConfig, RunConfig
from couette.contracts import Denoise
from couette.data import is_gone
from couette.errors import CouetteError, DataError, InputError
from couette.exact import folder_of, is_exact, named
from couette.guidance import Classify
from couette.model import (
    ClassifierModel,
    Model,
    drawn_as,
    exact_model,
    load_autoencoder,
    load_classifier,
    load_encoder,
    load_model,
    read_config,
)
from couette.networks.text import WordEncoder
from couette.places import STARTER, packaged
from couette.registry import RECIPES
from couette.runs import RunFolder, find_model
from couette.runtime import Runtime

_COLORS = {1: "gray", 3: "rgb"}


def open_model(given: str | Path, *, average: bool = True, runtime: Runtime | None = None) -> Model:
    """The model that a user means: of a run, a checkpoint, a saved model, an exact world, or
    another library.

    The model of a run draws as the run's `config.yaml` says now; another as it was saved.

    Args:
        given: the folder, a world as `exact:digits`, or `owner/name` of the Hugging Face hub.
        average: the running average of the weights, where there is one; else the raw weights.
        runtime: where to put it.

    Raises:
        CheckpointError: nothing to load there, or it is damaged; other CouetteErrors as they fit.
    """
    if is_exact(given):
        return exact_model(named(given), runtime)
    if interop.is_foreign(given):
        return interop.load(given, runtime)
    path = Path(given)
    interop.refuse_pickles(path)
    model = _load_model(find_model(path), average=average, runtime=runtime)
    run = RunFolder(path)
    return drawn_as(model, run.config().sampling) if run.exists() else model


def _load_model(folder: Path, *, average: bool = True, runtime: Runtime | None = None) -> Model:
    """`load_model`, with another library's encoder of words where the model is told by one."""
    found = partial(_words, folder)
    return load_model(folder, average=average, runtime=runtime, open_words=found)


def _words(folder: Path, described: PretrainedConfig) -> tuple[Tokenizes, WordEncoder]:
    """The encoder of a model, where the config.yaml of its run says now, or where it was.

    Raises:
        CheckpointError: it is not there, or it is another one.
        ConfigError: a package is missing.
    """
    run = RunFolder(folder.parent.parent)
    if folder.parent == run.checkpoints and run.exists():
        with suppress(CouetteError):  # settings that can't be read are no matter of a checkpoint
            text = run.config().text
            if text.encoder == "pretrained" and text.run is not None:
                described = described.model_copy(update={"source": text.run})
    found = interop.open_again(described)
    return found.tokenizer, found.encoder


def is_single(given: str | Path) -> bool:
    """Whether it names a model that has no run, no checkpoints and one set of weights: an exact
    world, or another library's."""
    return is_exact(given) or interop.is_foreign(given)


def home_of(given: str | Path) -> Path:
    """The folder for what is drawn or measured of it, unless told otherwise."""
    return folder_of(given) if is_exact(given) else interop.home_of(given)


def data_of(path: Path, held: ModelConfig, data: str | Path | None, new_place: str) -> DataConfig:
    """The data a model is measured against: its run's own, or others brought to its size.

    Raises:
        InputError: a saved model without a run, and no data named.
        DataError: the run's data are not where they were; `new_place` says how to tell where.
    """
    if data is None and is_exact(path):
        return named(path).data
    if data is None and packaged(path):
        recipe: RunConfig = RECIPES[STARTER]()
        return recipe.data
    runs = [RunFolder(each) for each in (path, path.resolve().parent.parent)]
    config = next((each.config().data for each in runs if each.exists()), None)
    if data is None:
        if config is None:
            raise InputError(f"{path} is a model without its run; say which data to measure with.")
        if is_gone(config.source):
            raise DataError(
                f"The pictures of this run were at {config.source}, which is not there; give their "
                f"new place: {new_place}."
            )
        return config
    base = config or DataConfig()
    if held.is_points:
        return base.model_copy(update={"source": str(data)})
    size = {"resolution": (held.height, held.width), "color": _COLORS.get(held.channels, "auto")}
    return base.model_copy(update={"source": str(data), **size})


def open_whole(folder: Path, *, average: bool = True) -> None:
    """Open what lies in a model folder, of whatever kind, to see that it is whole.

    Raises:
        CheckpointError, ConfigError, ShapeError: it is not.
    """
    load: Callable[..., Any] = {
        "diffusion": _load_model,
        "classifier": load_classifier,
        "contrastive": load_encoder,
        "autoencoder": load_autoencoder,
    }[read_config(folder).objective.name]
    load(folder, average=average)


def guide_for(model: Model, path: str) -> Denoise:
    """A worse model to guide by.

    Raises:
        InputError: it makes other pictures, or noises them otherwise.
    """
    folder = find_model(Path(path))
    other: Model = opened(_load_model, folder, model.denoiser.runtime)
    _same(model, other, f"The guide in {folder}")
    if other.conditioner.classes != model.conditioner.classes:
        raise InputError(
            f"The guide in {folder} knows other classes than the model; choose one that is told "
            "the same."
        )
    if _told_by(other.config) != _told_by(model.config):
        raise InputError(
            f"The guide in {folder} is told words by another encoder than the model; choose one "
            "that is told the same."
        )
    return other.denoiser


def _told_by(config: ModelConfig) -> str | None:
    """The digest of the encoder that a model is told its words by."""
    encoder = config.reader or config.pretrained
    return None if encoder is None else encoder.digest


def classifier_for(model: Model, path: str) -> Classify:
    """The classifier at a path, of the pictures that the model makes, as it noises them.

    Raises:
        InputError: it reads other pictures, noised otherwise, or knows other classes.
    """
    folder = find_model(Path(path))
    other: ClassifierModel = opened(load_classifier, folder, model.denoiser.runtime)
    _same(model, other, f"The classifier in {folder}")
    if model.conditioner.classes not in ((), other.classes):
        raise InputError(
            f"The classifier in {folder} knows other classes than the model; train one on the "
            "same data."
        )
    return other.classify


def _same(model: Model, other: Model | ClassifierModel, named: str) -> None:
    """Refuse a model of other pictures, or of pictures noised otherwise."""
    mine, theirs = model.config, other.config
    fields = ("channels", "height", "width", "codec", "diffusion.schedule", "diffusion.noise")
    differ = [name for name in fields if attrgetter(name)(mine) != attrgetter(name)(theirs)]
    if differ:
        raise InputError(
            f"{named} does not fit the model: they differ in {', '.join(differ)}; train it with "
            "the model's own."
        )


@lru_cache(maxsize=4)
def opened(load: Callable[..., Any], folder: Path, runtime: Runtime) -> Any:
    """A model to guide by, kept for the batches that follow."""
    return load(folder, runtime=runtime)
