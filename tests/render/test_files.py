import errno
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from couette.errors import DataError, InputError, StorageError
from couette.render.files import read_text, save, save_gif


def plain_frame(value, size=(8, 6)):
    return Image.new("RGB", size, (value, value, value))


def noisy(size=(40, 30)):
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def test_pixels_and_text_come_back(tmp_path):
    text = {"prompt": "a dög, ᾱ = 0.5", "seed": "7", "config": "{\n  'x': 1\n}", "empty": ""}
    save(noisy(), tmp_path / "new" / "a.png", text=text)
    assert read_text(tmp_path / "new" / "a.png") == text
    with Image.open(tmp_path / "new" / "a.png") as image:
        assert image.tobytes() == noisy().tobytes()


keys = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=79)
values = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=200)


@given(text=st.dictionaries(keys, values, max_size=5))
def test_any_text_comes_back(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("text") / "a.png"
    save(plain_frame(1), path, text=text)
    assert read_text(path) == text


def test_without_text_none_is_written(tmp_path):
    save(plain_frame(1), tmp_path / "a.png")
    assert read_text(tmp_path / "a.png") == {}


@pytest.mark.parametrize("key", ["", "x" * 80, "ключ", "a\0b"])
def test_a_key_that_png_cannot_hold_is_refused(tmp_path, key):
    with pytest.raises(InputError, match="1 to 79"):
        save(plain_frame(1), tmp_path / "a.png", text={key: "1"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("write", [save, lambda image, path: save_gif([image], path)])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, write):
    path = tmp_path / "a"
    path.write_bytes(b"before")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="full"):
        write(noisy(), path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_no_png_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"hello")
    save(noisy(), tmp_path / "cut.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "cut.png").read_bytes()[:900])
    for name in ("a.png", "cut.png", "missing.png"):
        with pytest.raises(DataError, match=name):
            read_text(tmp_path / name)


def frames_of(path):
    with Image.open(path) as image:
        found = []
        for i in range(image.n_frames):
            image.seek(i)
            found.append((image.info["duration"], np.asarray(image.convert("RGB"))))
        return found, image.info.get("loop")


def test_gif_frames_durations_and_gray_values(tmp_path):
    save_gif([plain_frame(v) for v in (0, 77, 254)], tmp_path / "a.gif", fps=10, hold_last=1.5)
    frames, loop = frames_of(tmp_path / "a.gif")
    assert [duration for duration, _ in frames] == [100, 100, 1600]
    assert [int(values[0, 0, 0]) for _, values in frames] == [0, 77, 254]
    assert loop == 0


def test_gif_may_play_once_and_merges_equal_frames(tmp_path):
    frames = [plain_frame(v) for v in (5, 5, 9)]
    save_gif(frames, tmp_path / "a.gif", fps=20, hold_last=0, loop=False)
    found, loop = frames_of(tmp_path / "a.gif")
    assert [duration for duration, _ in found] == [100, 50]
    assert loop is None


def test_gif_keeps_few_colours_exactly_and_many_nearly(tmp_path):
    few = Image.new("RGB", (4, 4), (10, 200, 30))
    few.putpixel((1, 2), (250, 3, 99))
    smooth = np.linspace(0, 255, 64 * 64).reshape(64, 64)
    many = np.stack((smooth, smooth.T, 255 - smooth), axis=-1).astype(np.uint8)
    save_gif([few], tmp_path / "few.gif")
    save_gif([Image.fromarray(many)], tmp_path / "many.gif")
    assert np.array_equal(frames_of(tmp_path / "few.gif")[0][0][1], np.asarray(few))
    error = np.abs(frames_of(tmp_path / "many.gif")[0][0][1].astype(int) - many)
    assert error.mean() < 8


@pytest.mark.parametrize("fps", [0, -1, 51, float("nan")])
def test_a_speed_that_viewers_cannot_show_is_refused(tmp_path, fps):
    with pytest.raises(InputError, match="at most 50"):
        save_gif([plain_frame(1)], tmp_path / "a.gif", fps=fps)


def test_frames_must_exist_and_agree_in_size(tmp_path):
    with pytest.raises(InputError, match="no frames"):
        save_gif([], tmp_path / "a.gif")
    with pytest.raises(InputError, match="differ in size"):
        save_gif([plain_frame(1), plain_frame(1, (9, 9))], tmp_path / "a.gif")
