"""What a folder of pictures means: its splits, classes and captions, before any is decoded.

Only files found by walking the folder are ever opened: a metadata file can name no other.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from couette.data.dataset import counted, named, shown
from couette.data.decode import SUFFIXES, UNREAD_SUFFIXES, File
from couette.errors import DataError

TRAIN = frozenset({"train", "training"})
TEST = frozenset({"test", "testing"})
VALIDATION = frozenset({"val", "valid", "validation"})
METADATA = "metadata.jsonl"
_CAPTION_BYTES = 65536


class Entry(NamedTuple):
    """One picture: what to call it, where its bytes are, and what is known of it."""

    name: str
    file: File
    label: str | None = None
    text: str | None = None


@dataclass
class Layout:
    """What was found. `test` is None where the folder has no test split."""

    train: list[Entry]
    test: list[Entry] | None = None
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@dataclass
class _Tree:
    """The files below a folder, by their path relative to it."""

    root: Path
    pictures: list[PurePosixPath] = field(default_factory=list)
    metadata: list[PurePosixPath] = field(default_factory=list)
    captions: set[PurePosixPath] = field(default_factory=set)
    unread: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class _Described(NamedTuple):
    label: str | None
    text: str | None


def read_layout(root: Path) -> Layout:
    """Find the pictures of a folder, their splits, classes and captions.

    Raises:
        DataError: the folder can't be read, or holds no picture.
    """
    tree = _walk(root)
    if not tree.pictures:
        kinds = f" (only {_kinds(tree.unread)}, which is not read)" if tree.unread else ""
        raise DataError(
            f"There are no pictures in '{root}'{kinds}; give a folder with PNG, JPEG, WebP, GIF or "
            "BMP files."
        )
    layout = Layout(train=[], problems=tree.problems)
    if tree.unread:
        layout.notes.append(
            f"Files of kinds that are not read were ignored: {_kinds(tree.unread)}."
        )
    base = _common_folder(tree.pictures, {path.parent for path in tree.metadata})
    groups = _splits(tree.pictures, base, layout)
    described = _metadata(tree, layout)
    layout.train = _entries(tree, *groups["train"], described, layout)
    if "test" in groups:
        layout.test = _matching(_entries(tree, *groups["test"], described, None), layout)
    return layout


def _matching(entries: list[Entry], layout: Layout) -> list[Entry]:
    """The test pictures whose class training knows; without classes in training, all of them."""
    known = {entry.label for entry in layout.train}
    if known == {None}:
        return [entry._replace(label=None) for entry in entries]
    layout.problems += [
        f"{entry.name} is of no class that the training pictures have"
        for entry in entries
        if entry.label not in known
    ]
    return [entry for entry in entries if entry.label in known]


def natural(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts "2" before "10"."""
    parts = re.findall(r"[0-9]+|[^0-9]+", text)
    return tuple((0, int(p), "") if p[0] in "0123456789" else (1, 0, p) for p in parts)


def _walk(root: Path) -> _Tree:
    tree = _Tree(root)
    real = root.resolve()
    waiting = [PurePosixPath()]
    while waiting:
        folder = waiting.pop()
        try:
            found = sorted(os.scandir(root / folder), key=lambda item: natural(item.name))
        except OSError as error:
            if folder == PurePosixPath():
                raise DataError(f"The folder '{root}' can't be read: {error.strerror}.") from None
            tree.problems.append(f"{shown(str(folder))} can't be opened ({error.strerror})")
            continue
        for item in found:
            if item.name.startswith((".", "__MACOSX")):
                continue
            path = folder / item.name
            if item.is_symlink() and not _stays_inside(Path(item.path), real):
                tree.problems.append(f"{shown(str(path))} is a link that was not followed")
            elif item.is_dir(follow_symlinks=False):
                waiting.append(path)
            elif item.is_file():
                _enter(tree, path)
    tree.pictures.sort(key=lambda path: [natural(part) for part in path.parts])
    return tree


def _stays_inside(path: Path, real: Path) -> bool:
    """Whether a link leads to a file below the folder; links to folders could go in circles."""
    try:
        target = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return False
    return target.is_relative_to(real) and target.is_file()


def _enter(tree: _Tree, path: PurePosixPath) -> None:
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        tree.pictures.append(path)
    elif path.name == METADATA:
        tree.metadata.append(path)
    elif suffix == ".txt":
        tree.captions.add(path)
    elif suffix in UNREAD_SUFFIXES:
        tree.unread[suffix] = tree.unread.get(suffix, 0) + 1


def _kinds(unread: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {suffix}" for suffix, count in sorted(unread.items()))


def _common_folder(pictures: list[PurePosixPath], marked: set[PurePosixPath]) -> PurePosixPath:
    """The deepest folder that holds every picture, not below one that holds metadata."""
    base = PurePosixPath()
    while base not in marked:
        depth = len(base.parts)
        heads = {path.parts[depth] for path in pictures}
        if len(heads) > 1 or any(len(path.parts) == depth + 1 for path in pictures):
            break
        base = base / heads.pop()
    return base


Group = tuple[PurePosixPath, list[PurePosixPath]]


def _splits(pictures: list[PurePosixPath], base: PurePosixPath, layout: Layout) -> dict[str, Group]:
    """The pictures of each split, with the folder of the split."""
    depth = len(base.parts)
    folders: dict[str, list[PurePosixPath]] = {}
    for path in pictures:
        head = path.parts[depth] if len(path.parts) > depth + 1 else ""
        folders.setdefault(head, []).append(path)
    train = [name for name in folders if name.lower() in TRAIN]
    if not train:
        return {"train": (base, pictures)}
    groups = {"train": (base / train[0], folders.pop(train[0]))}
    for names in (TEST, VALIDATION):
        found = [name for name in folders if name.lower() in names]
        if found and "test" not in groups:
            groups["test"] = (base / found[0], folders.pop(found[0]))
    used = " and ".join(f"'{group[0].name}'" for group in groups.values())
    layout.notes.append(
        f"The splits are the folders {used}."
        if "test" in groups
        else (f"The pictures to train on are those of the folder {used}.")
    )
    for name, rest in folders.items():
        where = f"in '{shown(name)}'" if name else "beside these folders"
        layout.notes.append(f"Not used: {counted(len(rest), 'picture')} {where}.")
    return groups


def _entries(
    tree: _Tree,
    folder: PurePosixPath,
    pictures: list[PurePosixPath],
    described: dict[PurePosixPath, _Described] | None,
    layout: Layout | None,
) -> list[Entry]:
    """The pictures of one split; says in `layout` (where given) how they are described."""
    entries = [Entry(shown(str(path)), tree.root / path) for path in pictures]
    if described is not None:
        entries, notes = _by_metadata(entries, pictures, described)
    else:
        entries, notes = _by_folders(entries, pictures, folder)
        entries, more = _by_captions(tree, entries, pictures)
        notes += more
    if layout is not None:
        layout.notes += notes
    return entries


def _by_metadata(
    entries: list[Entry], pictures: list[PurePosixPath], described: dict[PurePosixPath, _Described]
) -> tuple[list[Entry], list[str]]:
    told = [
        (entry, described[path])
        for entry, path in zip(entries, pictures, strict=True)
        if path in described
    ]
    labelled = [pair for pair in told if pair[1].label is not None]
    captioned = sum(about.text is not None for _, about in told)
    gives = [what for what, has in (("classes", labelled), ("captions", captioned)) if has]
    notes = [f"{METADATA} gives the {' and '.join(gives)}." if gives else f"{METADATA} was read."]
    if missing := len(entries) - len(told):
        notes.append(f"Left out: {counted(missing, 'picture')} without a line in {METADATA}.")
    if labelled and len(labelled) < len(told):
        missing = len(told) - len(labelled)
        notes.append(f"Left out: {counted(missing, 'picture')} without a label.")
        told = labelled
    return [
        entry._replace(label=about.label, text=(about.text or "") if captioned else None)
        for entry, about in told
    ], notes


def _by_folders(
    entries: list[Entry], pictures: list[PurePosixPath], folder: PurePosixPath
) -> tuple[list[Entry], list[str]]:
    depth = len(folder.parts)
    heads = [path.parts[depth] if len(path.parts) > depth + 1 else "" for path in pictures]
    if len(set(heads)) < 2:
        return entries, []
    if "" in heads:
        return entries, ["Pictures lie both in the folder and in folders below it: no classes."]
    labelled = [e._replace(label=shown(head)) for e, head in zip(entries, heads, strict=True)]
    return labelled, ["Each folder is a class."]


def _by_captions(
    tree: _Tree, entries: list[Entry], pictures: list[PurePosixPath]
) -> tuple[list[Entry], list[str]]:
    sidecars = [path.with_suffix(".txt") for path in pictures]
    count = sum(path in tree.captions for path in sidecars)
    if not count:
        return entries, []
    texts = [_caption(tree.root / p) if p in tree.captions else "" for p in sidecars]
    notes = [f"Captions come from the .txt files: {count:,} of {counted(len(entries), 'picture')}."]
    return [e._replace(text=text) for e, text in zip(entries, texts, strict=True)], notes


def _caption(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return " ".join(file.read(_CAPTION_BYTES).decode("utf-8-sig", "replace").split())
    except OSError:
        return ""


def _metadata(tree: _Tree, layout: Layout) -> dict[PurePosixPath, _Described] | None:
    """What every metadata file says of the pictures, or None where there is no such file."""
    if not tree.metadata:
        return None
    pictures = set(tree.pictures)
    told: dict[PurePosixPath, _Described] = {}
    faults: list[str] = []
    for path in tree.metadata:
        for number, line in _lines(tree.root / path):
            try:
                target, about = _parse(line, path.parent)
                if target in told:
                    raise ValueError(f"names {shown(str(target))} again")
                if target not in pictures:
                    raise ValueError(f"names {shown(str(target))}, which is missing")
                told[target] = about
            except (ValueError, RecursionError) as error:
                faults.append(f"line {number} of {shown(str(path))} {error}")
    if faults:
        lines = counted(len(faults), "line")
        layout.notes.append(f"{lines} of {METADATA} could not be used: {named(faults)}.")
    if not told:
        raise DataError(
            f"'{tree.root}' has a {METADATA} that describes none of its pictures"
            f"{f' ({named(faults)})' if faults else ''}; mend it or take "
            'it away. A line reads {"file_name": "a.png", "text": "a cat"}.'
        )
    return told


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            yield from ((n, line) for n, line in enumerate(file, 1) if line.strip())
    except OSError as error:
        raise DataError(f"'{path}' can't be read: {error.strerror}.") from None


def _parse(line: str, folder: PurePosixPath) -> tuple[PurePosixPath, _Described]:
    """The picture that a line describes; a ValueError completes "line 3 …"."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    name = fields.get("file_name") if isinstance(fields, dict) else None
    if not isinstance(name, str) or not name:
        raise ValueError("has no file_name")
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise ValueError("names a file outside the folder")
    label, text = fields.get("label"), fields.get("text")
    if label is not None and (isinstance(label, bool) or not isinstance(label, (int, str))):
        raise ValueError("has a label that is neither a word nor a whole number")
    if text is not None and not isinstance(text, str):
        raise ValueError("has a text that is not a string")
    about = _Described(None if label in (None, "") else shown(str(label)), text)
    return folder / relative, about
