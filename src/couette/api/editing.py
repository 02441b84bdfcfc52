"""Edits of pictures, on any model: `edit`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.nn import functional

from couette import generate
from couette.api.drawing import check_seed, load
from couette.conditioners import Words
from couette.config import DataConfig, SamplingConfig, Spec
from couette.contracts import Ask
from couette.data import open_data
from couette.data.decode import Look, color
from couette.data.single import header_of, read_picture
from couette.editing import EDITS, Edit, Edited, Scene, drawn, edits_of
from couette.errors import CheckpointError, DataError, InputError, ShapeError
from couette.evaluation.features import feature_space
from couette.evaluation.reconstruction import peak_ratio, similarity
from couette.evaluation.retrieval import embed_texts, looked_at, zero_shot
from couette.model import Model, load_encoder
from couette.runs import find_model
from couette.runtime import Runtime
from couette.validation import parse

_BACKGROUND = "white"
_SAMPLING = frozenset(SamplingConfig.model_fields)

Answer = int | str | None
"""A label or words; None for neither."""

Reads = Callable[[Tensor, Sequence[Any]], Sequence[Answer]]
"""What pictures show: a label each, or that of the prompts that were given which it is nearest."""


def edit(
    model: Model | str | Path,
    name: str,
    *pictures: str | Path | Tensor,
    count: int = 4,
    label: str | int | Sequence[str | int] = (),
    prompt: str | Sequence[str] = (),
    seed: int = 0,
    batch: int = 64,
    judge: str | None = None,
    **settings: Any,
) -> list[Edited]:
    """Change, combine or complete pictures with a model.

    Args:
        model: a loaded model, or what `load` takes.
        name: of the edit: "img2img", "inpaint", "anagram", … (`couette list edits`).
        pictures: files, which are brought to the model's size, or tensors of it, (C, H, W) or (1,
            C, H, W) in [-1, 1]; as many as the edit needs.
        count: how many pictures to draw, in each of its rows.
        label: a class by name or number, or several: an edit of several things takes one for each,
            others take them in turn.
        prompt: words, or several, likewise.
        seed: picture i of a seed is the same at any batch size.
        batch: how many are drawn at once.
        judge: a data set whose classes the pictures are of: the classifier of `evaluate` reads
            them. Of pictures of prompts an encoder: it says which of the prompts each is nearest.
            The notes say how many are what was asked for.
        settings: the edit's own, and those of `SamplingConfig`.

    Returns:
        A row for each way in which the edit was asked for.

    Raises:
        InputError: what was asked does not fit the model or the pictures; before anything is drawn.
        DataError: a file that can't be read.
    """
    held = model if isinstance(model, Model) else load(model)
    scene, _ = scene_of(
        held, name, pictures, count=count, label=label, prompt=prompt, seed=seed, settings=settings
    )
    edits = edits_of(scene, edit_spec(name, settings))
    reads = None if judge is None else reader_of(scene, judge)
    return [finished(scene, each, batch, reads) for each in edits]


def edit_spec(name: str, settings: dict[str, Any]) -> Spec:
    """The edit with those of the settings that are its own.

    Raises:
        UnknownName: no edit of that name.
    """
    EDITS[name]
    own = {key: value for key, value in settings.items() if key not in _SAMPLING}
    return Spec(name=name, **own)


def scene_of(
    model: Model,
    name: str,
    pictures: Sequence[str | Path | Tensor],
    *,
    count: int,
    label: str | int | Sequence[str | int],
    prompt: str | Sequence[str],
    seed: int,
    settings: dict[str, Any],
) -> tuple[Scene, tuple[str, ...]]:
    """What an edit is made on, and what was done to the pictures on the way, in sentences.

    Raises:
        InputError, DataError: as `edit`.
    """
    check_seed(seed)
    EDITS[name]
    drawing = {key: value for key, value in settings.items() if key in _SAMPLING}
    # What is a measurement already is taken at its own size.
    scales = not EDITS.trait(name, "measures") or bool(settings.get("degrade"))
    read = [_read(model, each, scales) for each in pictures]
    labels = (label,) if isinstance(label, str | int) else tuple(label)
    scene = Scene(
        model,
        tuple(each for each, _, _ in read),
        count,
        tuple(map(str, labels)),
        (prompt,) if isinstance(prompt, str) else tuple(prompt),
        generate.sampling_of(model, **drawing),
        tuple(each for _, each, _ in read),
        seed,
    )
    return scene, tuple(note for _, _, notes in read for note in notes)


def reader_of(scene: Scene, judge: str) -> Reads:
    """What reads pictures: the classifier of a data set's classes, made for its pictures once and
    kept; where words were asked for, the encoder of that name.

    Raises:
        InputError: data of other pictures or classes than the model's, or no two prompts.
        DataError, CheckpointError: data or an encoder that can't be opened.
    """
    if scene.labels or not scene.prompts:
        return _classifier(scene, judge)
    if len({prompt for prompt in scene.prompts if prompt}) < 2:
        raise InputError(
            "An encoder says which of several prompts a picture is nearest; give two or more."
        )
    return _encoder(scene, judge)


def _encoder(scene: Scene, folder: str) -> Reads:
    try:
        config, network, tokenizer = load_encoder(find_model(Path(folder)))
    except CheckpointError as error:
        raise CheckpointError(
            "Pictures of prompts are judged by an encoder, such as RUN/encoder of a run of "
            f"--recipe text-to-image. {error}"
        ) from None
    if config.channels != scene.model.config.channels:
        raise InputError(
            f"{folder} looks at pictures of {config.channels} channels, and the model makes some "
            f"of {scene.model.config.channels}; name an encoder of pictures like these."
        )
    reads, size = Words(tokenizer, config.text.length), (config.height, config.width)

    def read(pictures: Tensor, prompts: Sequence[Any]) -> list[Answer]:
        known = embed_texts(network, reads, prompts, Runtime())
        small = functional.interpolate(pictures, size, mode="bilinear", antialias=True)
        nearest = zero_shot(looked_at(network, small, Runtime()), known)
        return [prompts[i] for i in nearest.tolist()]

    return read


def _classifier(scene: Scene, data: str) -> Reads:
    config = scene.model.config
    size = {"resolution": scene.size, "color": "gray" if config.channels == 1 else "rgb"}
    train = open_data(parse(DataConfig, {"source": data, **size}, "the judge's data")).train
    if not config.classes or train.classes != config.classes:
        raise InputError(
            f"A judge reads the classes that the model was asked for, and {data} has "
            f"{', '.join(train.classes) or 'none'} where the model has "
            f"{', '.join(config.classes) or 'none'}; name the data that it was trained on."
        )
    space = feature_space(train)
    return lambda pictures, _: space.see(pictures).probabilities.argmax(1).tolist()


def finished(scene: Scene, each: Edit, batch: int = 64, reads: Reads | None = None) -> Edited:
    """One row drawn, with how near it came to what it should be where that is known."""
    found = drawn(scene, each, batch)
    notes = each.notes
    if reads is not None:
        notes = (*notes, *_verdict(each, found, reads))
    if each.truth is not None:
        pair = (found + 1) / 2, (each.truth.expand_as(found) + 1) / 2
        near = float(peak_ratio(*pair).mean()), float(similarity(*pair).mean())
        notes = (*notes, f"Against the original: PSNR {near[0]:.1f} dB, SSIM {near[1]:.3f}.")
    return Edited(each.name, found, each, notes)


def _verdict(edit: Edit, found: Tensor, reads: Reads) -> tuple[str, ...]:
    """How many pictures are read as what they were asked to show, in each way to look at them."""
    looks: list[tuple[str, Callable[[Tensor], Tensor], list[Answer]]]
    looks = [("as asked", lambda x: x, [*map(_wanted, edit.asked)])]
    if edit.shows:
        views = zip(edit.views.items(), map(_wanted, edit.shows), strict=True)
        looks = [
            (name, look, [each] * len(found)) for (name, look), each in views if each is not None
        ]
    among = [*dict.fromkeys(each for _, _, wanted in looks for each in wanted if each is not None)]
    if not among:
        return ()
    right = []
    for _, look, wanted in looks:
        answers = reads(look(found), among)
        right.append([a == w for a, w in zip(answers, wanted, strict=True)])
    shares = [
        f"{name}: {sum(row) / len(row):.0%}" for (name, _, _), row in zip(looks, right, strict=True)
    ]
    if len(right) > 1:
        every = sum(map(all, zip(*right, strict=True))) / len(found)
        shares.append(f"in all of them: {every:.0%}")
    return (f"Read as asked, {'; '.join(shares)}.",)


def _wanted(ask: Ask) -> Answer:
    return (ask.words or None) if ask.label is None else ask.label


def _read(
    model: Model, given: str | Path | Tensor, scales: bool
) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """A picture at the model's size, at its own, and what was done to it.

    Raises:
        DataError: a file that can't be read.
        ShapeError: a tensor of another size.
    """
    config = model.config
    wanted = (config.channels, config.height, config.width)
    if isinstance(given, Tensor):
        if given.shape not in (wanted, (1, *wanted)):
            raise ShapeError(
                f"A picture of {tuple(given.shape)} was given, and the model makes {wanted}; give "
                "a file, or scale it first."
            )
        picture = given.detach().cpu().reshape(1, *wanted)
        if not picture.is_floating_point() or not bool((picture.abs() <= 1).all()):
            raise DataError(
                f"A picture is given as numbers between -1 and 1, and this one ({given.dtype}) "
                "holds others; divide bytes by 127.5 and subtract 1."
            )
        picture = picture.float()
        return picture, picture, ()
    path = Path(given)
    header = header_of(path)
    ground = color(_BACKGROUND)
    sized = read_picture(path, Look(config.height, config.width, config.channels, ground))
    own = read_picture(path, Look(header.height, header.width, config.channels, ground))
    notes = []
    if scales and (header.height, header.width) != (config.height, config.width):
        notes.append(
            f"{path.name} was scaled from {header.width} × {header.height} to {config.width} × "
            f"{config.height} pixels."
        )
    if header.transparent:
        notes.append(f"{path.name} is transparent in places, and was laid on {_BACKGROUND}.")
    if not header.gray and config.channels == 1:
        notes.append(f"{path.name} was made gray, as the model's pictures are.")
    return sized, own, tuple(notes)
