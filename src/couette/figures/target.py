"""What a figure is drawn of: a run, a saved model, a data set, a recipe, or nothing.

Knows what can be found out about each and finds it out when it is asked for, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

import torch

from couette.codecs import Symmetric
from couette.config import DataConfig, DiffusionConfig, ModelConfig, RunConfig, RuntimeConfig
from couette.contracts import Codec, Sizes
from couette.data import Dataset, Splits, open_data
from couette.data.hub import is_hub_name
from couette.errors import InputError, UnknownName
from couette.exact import is_exact, named
from couette.figures.registry import Need
from couette.interop import describe, is_foreign
from couette.model import (
    Model,
    build_network,
    build_sized,
    read_config,
    sizes_of,
)
from couette.opening import data_of, home_of, open_model
from couette.places import packaged
from couette.registry import CODECS, DATASETS, RECIPES
from couette.runs import RunFolder, find_model
from couette.runtime import Runtime, choose

Kind = Literal["run", "model", "exact", "foreign", "recipe", "data", "nothing"]
Fit = Callable[[RunConfig, Dataset], RunConfig]

_RUNS = Path("runs")
"""Where `couette train` puts a run unless told otherwise."""

_HELD: dict[Kind, frozenset[Need]] = {
    "run": frozenset({"config", "data", "log", "model", "network", "weights"}),
    "model": frozenset({"config", "model", "network", "weights"}),
    "exact": frozenset({"config", "data", "model"}),
    "foreign": frozenset({"config", "model"}),
    "recipe": frozenset({"config", "data", "network"}),
    "data": frozenset({"data"}),
    "nothing": frozenset(),
}
_WANTED: dict[Need, str] = {
    "config": "a run or a recipe; give the folder that `couette train` printed, or a recipe's name",
    "data": "pictures; give a run, a data set or a recipe",
    "log": "a run; give the folder that `couette train` printed",
    "model": "a trained model; give the folder that `couette train` printed, or exact:digits",
    "weights": "a trained model; give the folder that `couette train` printed",
    "network": "a network; give a run or a recipe",
}

_DRAWS_NOTHING = {
    "classifier": "a classifier: show the 'gradients' of a model with --classifier {}",
    "autoencoder": "an autoencoder: show its 'latents'",
    "contrastive": "an encoder: couette search {} WORDS",
}
"""What makes no pictures, and what to do with it, by objective."""


@dataclass(frozen=True, eq=False)
class Target:
    """What the user named.

    Attributes:
        given: the words as given, "" for nothing.
        kind: what they turned out to name.
        config: every setting of the run or recipe; of a data set, only `config.data` is its own.
        folder: the run, where it is one.
        weights: the folder that the model is loaded from, where it is not the run's newest.
        average: whether the running average of the weights is used, where there is one.
        runtime: where a model runs.
        other_data: whether data were named beside a model, to be brought to its size.
    """

    given: str
    kind: Kind
    config: RunConfig = field(default_factory=RunConfig)
    folder: RunFolder | None = None
    weights: Path | None = None
    average: bool = True
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    fit: Fit | None = None
    other_data: bool = False

    @property
    def name(self) -> str:
        """What it is called in titles."""
        if self.folder is not None:
            return self.folder.path.resolve().name
        return Path(self.given).name or self.given

    @property
    def has_data(self) -> bool:
        """Whether there are data to draw from: a saved model has those that are named beside it,
        the package's own those that it was trained on."""
        own = self.kind == "model" and packaged(self.given) is not None
        return "data" in _HELD[self.kind] or self.other_data or own

    @property
    def run(self) -> RunFolder:
        """The run.

        Raises:
            InputError: it is none.
        """
        if self.folder is None:
            raise InputError(f"'{self.given}' is no run; give the folder of one.")
        return self.folder

    @property
    def home(self) -> Path:
        """The folder that its figures go into, unless told otherwise."""
        if self.folder is not None:
            return self.folder.path
        return home_of(self.given) if self.kind in ("exact", "foreign") else Path()

    @property
    def described(self) -> str:
        """What it is, in words: "the data set 'digits'"."""
        if self.kind == "nothing":
            return "nothing"
        words = {"data": "data set", "exact": "exact world", "foreign": "model"}
        return f"the {words.get(self.kind, self.kind)} '{self.given}'"

    @property
    def saved(self) -> Path:
        """The folder of its weights, where they were trained here.

        Raises:
            CheckpointError: the run has no checkpoint yet.
        """
        return find_model(self.weights or self.run.path)

    @property
    def _opened(self) -> str | Path:
        """What its model is opened by."""
        whole = self.kind in ("exact", "foreign")
        return self.given if whole else self.weights or self.run.path

    @cached_property
    def model(self) -> Model:
        """The trained or exact model, ready to draw.

        Raises:
            CheckpointError and others: it is missing or damaged.
        """
        return open_model(self._opened, average=self.average, runtime=choose(self.runtime))

    @cached_property
    def splits(self) -> Splits:
        """The data, opened.

        Raises:
            DataError and others: they can't be.
        """
        return open_data(self.config.data, others=self.other_data)

    @property
    def unseen(self) -> Dataset:
        """The pictures kept for evaluation; those of training where none are."""
        return self.splits.test or self.splits.train

    @property
    def diffusion(self) -> DiffusionConfig:
        return self.config.diffusion

    @cached_property
    def codec(self) -> Codec:
        """Between pictures and what is noised, on the processor; as they are, in [-1, 1], for bare
        data."""
        if self.latent and self.kind in ("run", "model", "foreign"):
            return open_model(self._opened, average=self.average, runtime=Runtime()).codec
        codec: Codec = Symmetric() if self.kind == "data" else CODECS.build(self.config.codec)
        return codec

    @property
    def latent(self) -> bool:
        """Whether it is about a model of an autoencoder's latents."""
        return bool(CODECS.trait(self.config.codec.name, "latents"))

    @property
    def one_step(self) -> bool:
        """Whether it is a one-step denoiser, which knows a single noise level."""
        return "config" in _HELD[self.kind] and self.diffusion.times.name == "fixed"

    @cached_property
    def points(self) -> bool:
        """Whether it is about points in the plane."""
        if self.folder is not None:
            return list(self.folder.facts().get("shape", ()))[1:] == [1, 1]
        if self.kind in ("model", "exact"):
            return self.model.is_points
        if self.kind == "foreign":
            return False
        return self.kind in ("data", "recipe") and self.splits.train.points

    @cached_property
    def network(self) -> tuple[torch.nn.Module, Sizes]:
        """The network, trained or fresh, and what it is built for.

        Raises:
            InputError: it is sized from the data when a run begins, and there is no run.
        """
        if self.kind in ("run", "model"):
            saved = read_config(self.weights or self.run.model_folder())
            return build_network(saved), sizes_of(saved)
        data = self.splits.train
        config = self.fit(self.config, data) if self.fit else self.config
        if config.network.name == "auto":
            raise InputError(
                f"The recipe '{self.given}' sizes its network from the data when a run begins; "
                "show the network of a run."
            )
        shape = self.codec.shape(data.channels, data.height, data.width)
        sizes = Sizes(*shape, len(data.classes) if self.diffusion.drop < 1 else 0)
        return build_sized(config.network, sizes, self.diffusion), sizes

    def lacks(self, needs: Iterable[Need]) -> str | None:
        """What of `needs` it does not have, in words that say what to give instead; else None."""
        wanted = frozenset(needs)
        for need, words in _WANTED.items():
            held = self.has_data if need == "data" else need in _HELD[self.kind]
            if need in wanted and not held:
                if need == "data" and self.kind in ("model", "foreign"):
                    words = "the pictures that the model is of; name them with --data"
                return f"needs {words}."
        kind = self.config.objective.name if "config" in _HELD[self.kind] else "diffusion"
        if "latents" in wanted and kind != "autoencoder" and not self.latent:
            return (
                f"needs an autoencoder, and {self.described} is none; train one with --recipe "
                "autoencoder."
            )
        if "embeddings" in wanted and kind != "contrastive":
            own = None if self.folder is None else self.folder.encoder
            there = own is not None and RunFolder(own).exists()
            hint = f"give its own, {own}" if there else "train one with --recipe clip"
            return f"needs an encoder, and {self.described} is none; {hint}."
        if {"model", "chain"} & wanted and kind in _DRAWS_NOTHING:
            what = _DRAWS_NOTHING[kind].format(self.given)
            return f"needs a model that makes pictures; {self.described} is {what}."
        if "chain" in wanted and self.one_step:
            return (
                f"needs a model that makes pictures from noise; {self.described} is a one-step "
                "denoiser: show its 'sigmas' or 'predictions'."
            )
        if "pictures" in wanted and self.points:
            return f"draws pictures, and {self.described} is about points; show 'dye'."
        if "points" in wanted and not self.points:
            return (
                "draws points in the plane; give such a data set (moons, swiss-roll, gaussians) "
                "or a run trained on one."
            )
        return None


def resolve(
    given: str | None,
    *,
    data: str | None = None,
    average: bool = True,
    runtime: RuntimeConfig | None = None,
    fit: Fit | None = None,
) -> Target:
    """Find out what the user means.

    Args:
        given: the folder of a run, a checkpoint or a saved model; an exact world; the name of a
            recipe or a data set; a folder of pictures; None for nothing. A name that is both a
            recipe's and a data set's means the recipe, which comes with those data.
        data: other data than those of the run or recipe.
        average: the running average of the weights, where there is one.
        runtime: where a model runs.
        fit: sizes a recipe's network from its data.

    Raises:
        UnknownName: nothing of that name; the nearest run, data set or recipe is named.
        CouetteError: what is there can't be read.
    """
    found = _find(given)
    config = found.config
    other = data is not None and found.kind in ("run", "model", "foreign")
    if other or (found.kind == "model" and packaged(found.given) is not None):
        run = found.folder
        where = run.model_folder() if found.weights is None and run else found.weights
        held = describe(found.given) if where is None else read_config(where)
        whose = data_of(Path(found.given), held, data, "--data NEWPATH")
        config = config.replace(data=whose.model_dump())
    elif data is not None:
        config = config.replace(data={"source": data})
    return Target(
        found.given,
        "data" if found.kind == "nothing" and data is not None else found.kind,
        config,
        found.folder,
        found.weights,
        average,
        runtime or RuntimeConfig(),
        fit,
        other,
    )


def _find(given: str | None) -> Target:
    if not given:
        return Target("", "nothing")
    if is_exact(given):
        world = named(given)
        return Target(given, "exact", RunConfig(data=world.data, diffusion=world.diffusion))
    path = Path(given).expanduser()
    if (path / "config.yaml").is_file():
        run = RunFolder(path)
        return Target(given, "run", run.config(), run)
    if (path / "model.json").is_file():
        return _saved(given, path)
    if given not in DATASETS and is_foreign(given) and not is_hub_name(given):
        return Target(given, "foreign", _settings(describe(given)))
    if (own := packaged(given)) is not None:
        return _saved(given, own)
    if given in RECIPES:
        return Target(given, "recipe", RECIPES[given]())
    distant = is_hub_name(given) and path.parent != _RUNS
    if given in DATASETS or path.is_dir() or distant:
        return Target(given, "data", RunConfig(data=DataConfig(source=given)))
    raise UnknownName("run, recipe or data set", given, [*RECIPES, *DATASETS, *_runs_near(path)])


def _saved(given: str, path: Path) -> Target:
    """A checkpoint of a run, or a model by itself."""
    run = RunFolder(path.resolve().parent.parent)
    if path.resolve().parent.name == "checkpoints" and run.exists():
        return Target(given, "run", run.config(), run, path)
    return Target(given, "model", _settings(read_config(path)), None, path)


def _settings(model: ModelConfig) -> RunConfig:
    """The settings of a model as those of a run, as far as it has them."""
    return RunConfig(
        recipe=model.recipe,
        objective=model.objective,
        codec=model.codec,
        diffusion=model.diffusion,
        network=model.network,
        sampling=model.sampling,
    )


def _runs_near(path: Path) -> list[str]:
    """The runs beside a path, and those in the usual place."""
    found = []
    for parent in dict.fromkeys((path.parent, _RUNS)):
        try:
            found += [str(each) for each in parent.iterdir() if (each / "config.yaml").is_file()]
        except OSError:
            continue
    return found
