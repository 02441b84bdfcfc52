"""Drawn pictures as files: a sheet, a file each, an array, an animation."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from couette import __version__, generate
from couette.config import SamplingConfig, Spec
from couette.contracts import Ask
from couette.data import to_uint8
from couette.errors import DataError, InputError
from couette.model import Model
from couette.opening import home_of
from couette.registry import GRIDS, GUIDANCE, SAMPLERS, THRESHOLDS, Registry
from couette.render import columns_for, dye, grid, read_text, reverse_frames, save, save_gif, spread
from couette.storage import check_writable, write_bytes

_FRAMES = 40
_SHEET = 4096
"""Pictures that still make one sheet."""
_LONGEST = 120
"""Letters of a name that still fit beside a count and a number on any disk."""
_SUFFIX = {"grid": ".png", "npz": ".npz", "gif": ".gif", "png": ""}


Text = dict[str, str]


@dataclass(frozen=True)
class Drawing:
    """What pictures are drawn with, as their names and their metadata tell it.

    Attributes:
        weights: "average" or "raw"; None where a model has no weights.
        usual: which of them are drawn with where nothing is asked.
        enlarged: the hash of the model that enlarged the pictures, where one did.
        edit: what else makes the pictures again, where they are edits.
    """

    model: Model
    sampling: SamplingConfig
    seed: int
    weights: str | None
    usual: str | None
    enlarged: str | None = None
    edit: Mapping[str, Any] | None = None

    def text(self, asked: Sequence[Ask], first: int = 0) -> Text:
        """The metadata of a picture or a sheet: the web UIs' line, and ours as JSON.

        Args:
            asked: what each of its pictures was asked to show.
            first: the index of the first of them.
        """
        config, sampling = self.model.config, self.sampling
        names = [self.label(ask) for ask in asked]
        shown = list(dict.fromkeys(name for name in names if name is not None))
        line = (
            f"Steps: {sampling.steps}, Sampler: {sampling.sampler}, "
            f"CFG scale: {sampling.guidance:g}, Seed: {self.seed}, "
            f"Size: {config.width}x{config.height}, Model hash: {self._digest[:10]}"
        )
        if shown:
            line += f", {'Label' if len(shown) == 1 else 'Labels'}: {'; '.join(shown)}"
        words = [ask.words for ask in asked]
        prompts = list(dict.fromkeys(each for each in words if each))
        if prompts or sampling.negative:
            # As the web UIs write it: the prompt, then the negative one, then the rest.
            away = f"\nNegative prompt: {sampling.negative}" if sampling.negative else ""
            line = f"{' | '.join(prompts)}{away}\n{line}"
        own = {
            "version": __version__,
            "seed": self.seed,
            "first": first,
            "count": len(asked),
            "labels": names,
            **({"prompts": words} if prompts else {}),
            **({"toward": [(a.toward, a.weight) for a in asked]} if asked[0].toward else {}),
            "sampling": _without_paths(sampling.model_dump(mode="json")),
            "recipe": config.recipe,
            "step": config.step,
            "weights": self.weights,
            "dtype": self.model.denoiser.runtime.dtype,
            "model": self._digest,
            **({"enlarged": self.enlarged} if self.enlarged else {}),
            **({"edit": dict(self.edit)} if self.edit else {}),
        }
        return {"parameters": line, "couette": json.dumps(own, ensure_ascii=False)}

    def name(self, asked: Sequence[Ask]) -> str:
        """A name that tells what differs from how the model draws by itself, without a suffix."""
        own, sampling = generate.sampling_of(self.model), self.sampling
        parts = [
            _part(SAMPLERS, own.sampler, sampling.sampler),
            _part(GRIDS, own.grid, sampling.grid),
            "" if sampling.steps == own.steps else f"{sampling.steps}steps",
            "" if sampling.guidance == own.guidance else f"guidance{sampling.guidance:g}",
            "" if sampling.guider == own.guider else "-".join(map(_guider, sampling.guider)),
            _part(THRESHOLDS, own.threshold, sampling.threshold),
            self._labels(asked),
            self._prompts(asked),
            "" if self.weights == self.usual else self.weights,
        ]
        told = re.sub(r"[^\w.=+-]+", "_", "".join(f"-{part}" for part in parts if part))
        if len(told) > _LONGEST:
            told = f"{told[:_LONGEST]}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"
        return f"{self._edited}seed{self.seed}{told}-{len(asked)}"

    @property
    def _edited(self) -> str:
        """The edit and the pictures it is made on, in a name."""
        if not self.edit:
            return ""
        parts = [self.edit["name"], *(Path(each["name"]).stem for each in self.edit["pictures"])]
        own = json.dumps(self.edit["settings"], sort_keys=True)
        mark = hashlib.sha256(own.encode()).hexdigest()[:6] if self.edit["settings"] else ""
        return re.sub(r"[^\w.=+-]+", "_", "-".join(filter(None, (*parts, mark))))[:_LONGEST] + "-"

    def label(self, ask: Ask) -> str | None:
        """The name of the class that was asked for; its number where the model knows no names."""
        classes = self.model.config.classes
        if ask.label is None:
            return None
        return classes[ask.label] if ask.label < len(classes) else str(ask.label)

    def _labels(self, asked: Sequence[Ask]) -> str:
        names = [self.label(ask) for ask in asked]
        if len(set(names)) > 1:
            return "each"
        return "" if names[0] is None else f"label{names[0]}"

    def _prompts(self, asked: Sequence[Ask]) -> str:
        """The words, or the first of several."""
        prompts = list(dict.fromkeys(ask.words for ask in asked if ask.words))
        away = f"-without-{self.sampling.negative}" if self.sampling.negative else ""
        if asked[0].toward:
            prompts = [f"{prompts[0] if prompts else ''}-toward-{asked[0].toward}", *prompts[1:]]
        more = f"-and{len(prompts) - 1}more" if len(prompts) > 1 else ""
        return (prompts[0] if prompts else "") + more + away

    @cached_property
    def _digest(self) -> str:
        return digest_of(self.model.network)


def _without_paths(sampling: dict[str, Any]) -> dict[str, Any]:
    """The sampling, models to guide by told by their runs' names alone."""
    guiders = [{**g, "run": _run_name(g["run"])} if "run" in g else g for g in sampling["guider"]]
    return {**sampling, "guider": guiders}


def _run_name(run: str) -> str:
    return Path(run).parent.parent.name or "model"


def digest_of(network: nn.Module) -> str:
    """SHA-256 of a network's weights, by which pictures name the model they were drawn with."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def written(
    drawing: Drawing,
    asked: Sequence[Ask],
    source: Path,
    out: Path | None,
    format: str,
    batch: int,
    metadata: bool,
    first: int = 0,
    second: Model | None = None,
) -> list[Path]:
    """Draw what is asked and write it.

    `first` is the index of the first picture; `second` a model that enlarges what is drawn.

    Where no place is given, what is there already is left, unless its metadata say that it is the
    same picture.

    Raises:
        InputError: a place or format that does not fit; before anything is drawn.
        StorageError: the disk refuses: where that can be known, before anything is drawn.
    """
    model, sampling, seed = drawing.model, drawing.sampling, drawing.seed

    def text(part: Sequence[Ask], index: int = 0) -> Text:
        return drawing.text(part, first + index) if metadata else {}

    if second is not None and format == "gif":
        raise InputError("A film shows the steps of one model; leave out --enlarge.")
    path = placed(drawing, asked, source, out, format, metadata, first)
    if format == "gif":
        return [_animation(model, asked, sampling, seed, first, path)]
    if second is None:
        batches = generate.pictures(
            model, asked, seed=seed, first=first, batch=batch, sampling=sampling
        )
    else:
        batches = generate.cascade(
            model, second, asked, seed=seed, index=first, batch=batch, sampling=(sampling, None)
        )
    if format == "png":
        return list(_files(batches, path, lambda index: text([asked[index]], index)))
    drawn = torch.cat(list(batches))
    if format == "npz":
        return [_array(drawn, asked, model, path)]
    if model.is_points:
        sheet = dye([drawn.reshape(-1, 2)], titles=[""])
    else:
        labels = [ask.label for ask in asked]
        classes = len(model.config.classes)
        in_turn = classes > 1 and labels == [i % classes for i in range(len(asked))]
        words = [
            (ask.words or "") + (f" → {ask.toward}: {ask.weight:g}" if ask.toward else "")
            for ask in asked
        ]
        several = len(set(words)) > 1
        sheet = grid(
            drawn,
            columns=columns_for(classes) if in_turn else None,
            labels=words if several else (),
            title=words[0] if not several else "",
        )
    save(sheet, path, text=text(asked))
    return [path]


def placed(
    drawing: Drawing,
    asked: Sequence[Ask],
    source: Path,
    out: Path | None,
    format: str,
    metadata: bool,
    first: int = 0,
) -> Path:
    """Where pictures go: where they are asked to, or in the run's folder under a name of theirs.

    Raises:
        InputError: a place or format that does not fit.
        StorageError: the disk refuses.
    """

    def text(part: Sequence[Ask]) -> Text:
        return drawing.text(part, first) if metadata else {}

    path = out or _free(_folder(source) / drawing.name(asked), format, asked, text)
    _check_place(path, format, len(asked), drawing.model)
    return path


def _folder(source: Path) -> Path:
    """Where pictures of a model go: in the run's folder."""
    checkpoint = source.resolve().parent.name == "checkpoints"
    return (source.resolve().parents[1] if checkpoint else home_of(source)) / "pictures"


def _free(
    path: Path, format: str, asked: Sequence[Ask], text: Callable[[Sequence[Ask]], Text]
) -> Path:
    """The first place of that name that is free, or holds just what will be drawn."""
    wanted = text(asked[:1] if format == "png" else asked)
    for number in count(1):
        tried = path.with_name(path.name + (f"_{number}" if number > 1 else "") + _SUFFIX[format])
        if not tried.exists() or (wanted and wanted == _written_in(tried, format, wanted)):
            return tried
    raise AssertionError("there are always more numbers")


def _written_in(path: Path, format: str, wanted: Text) -> Text:
    """The metadata of a picture that is there; of the first one in a folder."""
    if format not in ("grid", "png"):
        return {}
    try:
        found = read_text(path / "00000.png" if format == "png" else path)
    except DataError:
        return {}
    return {name: value for name, value in found.items() if name in wanted}


def _part(family: Registry[Any], own: Spec, used: Spec) -> str:
    """A part in a name, where it is not the model's own: its settings only where they are set."""
    if used == own:
        return ""
    return str(family.brief(used))


def _guider(used: Spec) -> str:
    """A method of guidance in a name, its model by the run's name alone."""
    settings = dict(used.settings)
    if "run" in settings:
        settings["run"] = _run_name(str(settings["run"]))
    return str(GUIDANCE.brief(Spec(name=used.name, **settings)))


def _check_place(path: Path, format: str, count: int, model: Model) -> None:
    if format == "png":
        if path.is_file() or path.suffix:
            raise InputError(f"--format png writes a folder of {count} files; {path} is a file.")
        if model.is_points:
            raise InputError("Points make no pictures of their own; use --format grid or npz.")
    elif path.is_dir() or path.suffix.lower() != _SUFFIX[format]:
        raise InputError(
            f"--format {format} writes one {_SUFFIX[format]} file; give --out such a name, "
            f"not {path}."
        )
    elif format != "npz" and count > _SHEET and not model.is_points:
        raise InputError(
            f"A sheet holds at most {_SHEET:,} pictures, not {count:,}; use --format png or npz."
        )
    check_writable(path if format == "png" else path.parent)


def _files(
    batches: Iterator[torch.Tensor], folder: Path, text: Callable[[int], Text]
) -> Iterator[Path]:
    """A file for each picture, as soon as its batch is drawn: what is there stays there."""
    for index, picture in enumerate(chain.from_iterable(batches)):
        path = folder / f"{index:05d}.png"
        told = text(index)
        own = {**told, "couette-index": str(index)} if told else {}
        save(grid(picture[None], columns=1, scale=1, pad=0), path, text=own)
        yield path


def _array(drawn: torch.Tensor, asked: Sequence[Ask], model: Model, path: Path) -> Path:
    """`images` uint8 (N, H, W) or (N, H, W, 3), or `points` (N, 2); `labels` int64, -1 for none."""
    labels = np.array([-1 if ask.label is None else ask.label for ask in asked], dtype=np.int64)
    if model.is_points:
        fields = {"points": drawn.reshape(-1, 2).numpy()}
    else:
        images = to_uint8(drawn).permute(0, 2, 3, 1).contiguous().numpy()
        fields = {"images": images[..., 0] if images.shape[-1] == 1 else images}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, labels=labels, **fields)  # type: ignore[arg-type]
    write_bytes(path, buffer.getvalue())
    return path


def _animation(
    model: Model,
    asked: Sequence[Ask],
    sampling: SamplingConfig,
    seed: int,
    first: int,
    path: Path,
) -> Path:
    """The reverse process, at most `_FRAMES` of its steps."""
    batches = [
        model.codec.decode(step.x).float().cpu()
        for step in generate.steps(model, asked, seed=seed, first=first, sampling=sampling)
        if step.count is None or step.index in spread(step.count, _FRAMES)
    ]
    save_gif(reverse_frames(batches), path)
    return path
