from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from couette.config import DataConfig
from couette.contracts import Sizes
from couette.data import Dataset, Splits, open_data
from couette.errors import ConfigError, DataError

Save = Callable[..., Path]


def opened(path: Path, **settings: object) -> Splits:
    return open_data(DataConfig(source=str(path), **settings))


def labels(data: Dataset) -> list[str]:
    assert data.labels is not None
    return [data.classes[label] for label in data.labels.tolist()]


def write_metadata(folder: Path, *lines: object) -> None:
    text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    (folder / "metadata.jsonl").write_text("\n".join(text))


def test_a_flat_folder(tmp_path: Path, save: Save) -> None:
    paths = [save(f"{name}.png") for name in (10, 9, 1)]
    train, test = opened(tmp_path / "set", holdout=0)
    assert test is None
    assert train.name == "set"
    assert train.names == ("1.png", "9.png", "10.png")
    assert train.classes == () and train.labels is None and train.texts is None
    assert np.array_equal(train.values[2].numpy(), np.asarray(Image.open(paths[0])))


def test_a_folder_per_class_in_natural_order(tmp_path: Path, save: Save) -> None:
    for name in ("10/a.png", "9/b.png", "9/deep/c.png", "9/.hidden.png", "10/notes.md"):
        save(name) if name.endswith("png") else (tmp_path / "set" / name).write_text("x")
    train = opened(tmp_path / "set", holdout=0).train
    assert train.classes == ("9", "10")
    assert dict(zip(train.names or (), labels(train), strict=True)) == {
        "9/b.png": "9",
        "9/deep/c.png": "9",
        "10/a.png": "10",
    }
    assert "1 class has a single picture, too few to learn from: '10'." in train.notes


@pytest.mark.parametrize("held", ["test", "val", "Validation"])
def test_splits_with_classes(tmp_path: Path, save: Save, held: str) -> None:
    for split, count in (("train", 3), (held, 2)):
        for kind in ("cat", "dog"):
            for number in range(count):
                save(f"{split}/{kind}/{number}.png")
    save(f"{held}/cow/0.png")
    save("logo.png")
    train, test = opened(tmp_path / "set")
    assert test is not None
    assert (len(train), len(test)) == (6, 4)
    assert train.classes == test.classes == ("cat", "dog")
    assert labels(test) == ["cat", "cat", "dog", "dog"]
    said = train.describe()
    assert "Not used: 1 picture beside these folders." in said
    assert f"{held}/cow/0.png is of no class" in said


def test_test_is_preferred_to_validation(tmp_path: Path, save: Save) -> None:
    for split in ("train", "val", "test"):
        for number in range(2):
            save(f"{split}/{number}.png")
    train, test = opened(tmp_path / "set")
    assert test is not None and test.names == ("test/0.png", "test/1.png")
    assert "Not used: 2 pictures in 'val'." in train.notes


@pytest.mark.parametrize("prefix", ["train", "archive/train", "pictures"])
def test_a_lone_folder_is_no_class(tmp_path: Path, save: Save, prefix: str) -> None:
    for number in range(4):
        save(f"{prefix}/{number}.png")
    assert opened(tmp_path / "set").train.classes == ()


def test_classes_below_a_lone_folder(tmp_path: Path, save: Save) -> None:
    for name in ("train/a/0.png", "train/a/1.png", "train/b/0.png"):
        save(name)
    assert opened(tmp_path / "set").train.classes == ("a", "b")


def test_a_mixture_of_files_and_folders_has_no_classes(tmp_path: Path, save: Save) -> None:
    for name in ("0.png", "a/1.png", "b/2.png"):
        save(name)
    train = opened(tmp_path / "set", holdout=0).train
    assert len(train) == 3 and train.classes == ()
    assert any("no classes" in note for note in train.notes)


def test_captions_beside_the_pictures(tmp_path: Path, save: Save) -> None:
    for name in "abc":
        save(f"{name}.png")
    (tmp_path / "set" / "a.txt").write_text("a  red\nhouse\n")
    (tmp_path / "set" / "c.txt").write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9")
    train = opened(tmp_path / "set", holdout=0).train
    assert train.texts == ("a red house", "", "café")
    assert "Captions come from the .txt files: 2 of 3 pictures." in train.notes


def test_metadata_gives_classes_and_captions(tmp_path: Path, save: Save) -> None:
    for name in ("x/a.png", "x/b.png", "y/c.png", "y/d.png"):
        save(name)
    write_metadata(
        tmp_path / "set",
        {"file_name": "x/a.png", "text": "one", "label": 7},
        {"file_name": "./x/b.png", "label": 3},
        {"file_name": "y/c.png", "text": "three", "label": 7},
    )
    train = opened(tmp_path / "set", holdout=0).train
    assert train.classes == ("3", "7")
    assert labels(train) == ["7", "3", "7"]
    assert train.texts == ("one", "", "three")
    assert "metadata.jsonl gives the classes and captions." in train.notes
    assert "Left out: 1 picture without a line in metadata.jsonl." in train.notes


def test_metadata_in_each_split(tmp_path: Path, save: Save) -> None:
    for split in ("train", "test"):
        for name in "ab":
            save(f"{split}/{name}.png")
        lines = [{"file_name": f"{name}.png", "label": name, "text": split} for name in "ab"]
        write_metadata(tmp_path / "set" / split, *lines)
    train, test = opened(tmp_path / "set")
    assert test is not None
    assert labels(train) == labels(test) == ["a", "b"]
    assert test.texts == ("test", "test")


def test_bad_metadata_lines_are_counted_and_named(tmp_path: Path, save: Save) -> None:
    save("a.png"), save("b.png")
    secret = tmp_path / "secret.png"
    Image.new("RGB", (16, 16)).save(secret)
    write_metadata(
        tmp_path / "set",
        {"file_name": "a.png"},
        "{broken",
        {"text": "no name"},
        {"file_name": "../secret.png"},
        {"file_name": str(secret)},
        {"file_name": "gone.png"},
        {"file_name": "a.png"},
        {"file_name": "b.png", "label": [1]},
        "[" * 100_000,
        {"file_name": "b.png", "text": "fine"},
    )
    train = opened(tmp_path / "set", holdout=0).train
    assert train.names == ("a.png", "b.png")
    [said] = [note for note in train.notes if "could not be used" in note]
    assert said == (
        "8 lines of metadata.jsonl could not be used: line 2 of metadata.jsonl is not JSON; "
        "line 3 of metadata.jsonl has no file_name; "
        "line 4 of metadata.jsonl names a file outside the folder; "
        "line 5 of metadata.jsonl names a file outside the folder; "
        "line 6 of metadata.jsonl names gone.png, which is missing; and 3 more."
    )


def test_metadata_that_describes_nothing_is_refused(tmp_path: Path, save: Save) -> None:
    save("a.png")
    write_metadata(tmp_path / "set", "nonsense")
    with pytest.raises(DataError, match="describes none"):
        opened(tmp_path / "set")


def test_bad_pictures_are_left_out_counted_and_named(tmp_path: Path, save: Save) -> None:
    for number in range(5):
        save(f"good{number}.png")
    root = tmp_path / "set"
    whole = save("cut.png", size=(64, 64)).read_bytes()
    (root / "cut.png").write_bytes(whole[:3000])
    (root / "empty.jpg").touch()
    (root / "text.png").write_text("no picture")
    (root / "old.tif").write_bytes(b"II*\0")
    os.mkfifo(root / "pipe.png")
    (root / "evil\x1b[31m.png").touch()
    train, test = opened(root)
    assert test is not None and len(train) + len(test) == 5
    [said] = [note for note in train.notes if "left out:" in note]
    assert said.startswith("4 of 9 pictures left out: ")
    for part in ("cut.png is truncated", "empty.jpg is empty", "text.png is not a PNG"):
        assert part in said
    assert "\x1b" not in train.describe()
    assert any("1 .tif" in note for note in train.notes)


def test_links_that_lead_out_are_not_followed(tmp_path: Path, save: Save) -> None:
    inside = save("a.png"), save("b.png")
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (16, 16)).save(outside / "secret.png")
    root = tmp_path / "set"
    (root / "file.png").symlink_to(outside / "secret.png")
    (root / "folder").symlink_to(outside)
    (root / "circle").symlink_to(root)
    (root / "gone.png").symlink_to(root / "nothing.png")
    (root / "same.png").symlink_to(inside[0])
    train = opened(root, holdout=0).train
    assert train.names == ("a.png", "b.png", "same.png")
    assert "file.png is a link that was not followed" in train.describe()


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_are_refused(tmp_path: Path, save: Save, count: int) -> None:
    root = tmp_path / "set"
    root.mkdir()
    for number in range(count):
        save(f"{number}.png")
    (root / "bad.png").touch()
    with pytest.raises(
        DataError, match=rf"Only {count} picture.* of {count + 1} \(bad.png is empty"
    ):
        opened(root)


def test_truncation_seen_only_in_decoding_can_leave_too_few(tmp_path: Path, save: Save) -> None:
    save("a.png")
    cut = save("b.png", size=(64, 64))
    cut.write_bytes(cut.read_bytes()[:3000])
    with pytest.raises(DataError, match=r"Only 1 picture can be used of 2 \(b.png is truncated\)"):
        opened(tmp_path / "set", resolution=16)


def test_an_empty_folder_and_one_of_other_things_are_refused(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(DataError, match="There are no pictures in"):
        opened(tmp_path / "set")
    (tmp_path / "set" / "a.tiff").touch()
    with pytest.raises(DataError, match=r"only 1 \.tiff, which is not read"):
        opened(tmp_path / "set")


def test_two_pictures_are_enough_and_none_is_held_out(tmp_path: Path, save: Save) -> None:
    save("a.png"), save("b.png")
    train, test = opened(tmp_path / "set", holdout=0.5)
    assert len(train) == 2 and test is None
    assert "None is kept for evaluation." in train.notes


@pytest.mark.parametrize(
    ("sizes", "guess"),
    [
        ([(28, 28)], (28, 28)),
        ([(24, 32)], (32, 24)),
        ([(30, 30)], (24, 24)),
        ([(128, 128)], (32, 32)),
        ([(100, 300), (400, 50), (60, 60)], (32, 32)),
        ([(5, 7)], (8, 8)),
    ],
)
def test_the_size_is_guessed_and_said(
    tmp_path: Path, save: Save, sizes: list[tuple[int, int]], guess: tuple[int, int]
) -> None:
    for number in range(3):
        save(f"{number}.png", size=sizes[number % len(sizes)])
    train = opened(tmp_path / "set").train
    assert (train.height, train.width) == guess
    assert any("guessed" in note for note in train.notes) == (sizes[0][::-1] != guess)


def test_a_size_asked_for_is_used_and_enlarging_is_said(tmp_path: Path, save: Save) -> None:
    for number, size in enumerate([(20, 20), (50, 90), (90, 50)]):
        save(f"{number}.png", size=size)
    train = opened(tmp_path / "set", resolution=(24, 40)).train
    assert (train.height, train.width) == (24, 40)
    assert (
        "Pictures of 20×20 to 50 wide × 90 high were scaled on the short side and centre-cropped "
        "to 40 wide × 24 high." in train.notes
    )
    assert "1 picture smaller than that had to be enlarged." in train.notes


@pytest.mark.parametrize("resolution", [0, -3, 5000, (16, 0)])
def test_impossible_sizes_are_refused(tmp_path: Path, save: Save, resolution: object) -> None:
    save("a.png"), save("b.png")
    with pytest.raises(ConfigError, match="sides go from 1 to 4096"):
        opened(tmp_path / "set", resolution=resolution)


@pytest.mark.parametrize(
    ("modes", "color", "channels"),
    [
        (("L", "LA"), "auto", 1),
        (("L", "RGB"), "auto", 3),
        (("RGBA",), "auto", 3),
        (("RGB",), "gray", 1),
        (("L",), "rgb", 3),
    ],
)
def test_channels(
    tmp_path: Path, save: Save, modes: tuple[str, ...], color: str, channels: int
) -> None:
    for number in range(4):
        save(f"{number}.png", mode=modes[number % len(modes)])
    assert opened(tmp_path / "set", color=color).train.channels == channels


def test_gray_pictures_stored_in_colour_are_kept_as_gray(tmp_path: Path, save: Save) -> None:
    paths = [save(f"{number}.png", mode="L") for number in range(9)]
    originals = [np.asarray(Image.open(path)) for path in paths]
    for path, pixels in zip(paths, originals, strict=True):
        Image.fromarray(pixels).convert("RGB").save(path)
    train = opened(tmp_path / "set", holdout=0).train
    assert train.channels == 1
    assert np.array_equal(train.values[..., 0].numpy(), np.stack(originals))
    assert opened(tmp_path / "set", color="rgb").train.channels == 3


def test_a_coloured_background_makes_gray_pictures_coloured(tmp_path: Path, save: Save) -> None:
    save("a.png", mode="LA"), save("b.png", mode="LA")
    train = opened(tmp_path / "set", background="#ff0000").train
    assert train.channels == 3
    assert "2 pictures with transparency laid on #ff0000." in train.notes


def test_limit_and_holdout(tmp_path: Path, save: Save) -> None:
    for number in range(40):
        save(f"{'ab'[number % 2]}/{number}.png")
    train, test = opened(tmp_path / "set", limit=20, holdout=0.2)
    assert test is not None
    assert (len(train), len(test)) == (16, 4)
    assert not set(train.names or ()) & set(test.names or ())
    assert "20 of 40 pictures are used." in train.notes
    again = opened(tmp_path / "set", limit=20, holdout=0.2)
    assert again.train.fingerprint == train.fingerprint
    assert again.train.names == train.names


def test_emoji(shared_data: Path) -> None:
    train, test = opened(shared_data / "emoji", resolution=32, holdout=0)
    assert test is None
    assert len(train) == 3354
    assert train.sizes == Sizes(3, 32, 32, 0)
    assert train.texts is not None and train.names is not None
    assert train.texts[train.names.index("emoji_u0037_20e3.png")] == "keycap 7"
    assert "3,354 pictures with transparency laid on white." in train.notes
    corners = train.values[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    assert (corners == 255).all(-1).all(-1).float().mean() > 0.5
    assert torch.equal(train.pictures(torch.tensor([5]))[0, :, 3, 4], train.values[5, 3, 4])


def test_metadata_that_are_no_json_name_the_line(tmp_path: Path, save: Save) -> None:
    save("a.png"), save("b.png")
    (tmp_path / "set" / "metadata.jsonl").write_text("\n{file_name: a.png}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"\(line 2 of metadata\.jsonl is not JSON\); mend it"):
        open_data(DataConfig(source=str(tmp_path / "set")))
