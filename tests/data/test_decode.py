from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from couette.data import decode as decoding
from couette.data.decode import BadPicture, Look, color, decode, fit, probe, strict_pillow
from couette.errors import ConfigError

LOOK = Look(8, 8, 3)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(mode: str = "RGB", side: int = 8) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 4), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


def read(data: bytes, look: Look = LOOK) -> np.ndarray:
    return decode(lambda: data, look)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP"])
def test_lossless_pixels_come_through_unchanged(kind: str) -> None:
    image = noise("L").quantize(200).convert("RGB") if kind == "GIF" else noise()
    data = encoded(image, kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.array_equal(read(data), np.asarray(image))


def test_sixteen_bits_are_rounded_to_eight() -> None:
    deep = np.array([[0, 128, 129, 257], [32896, 65406, 65407, 65535]], np.uint16)
    got = read(encoded(Image.fromarray(deep), "PNG"), Look(2, 4, 1))
    assert got[..., 0].tolist() == [[0, 0, 1, 1], [128, 254, 255, 255]]


def test_one_bit_becomes_black_and_white() -> None:
    bits = Image.fromarray(np.eye(8, dtype=np.uint8) * 255).convert("1")
    assert np.array_equal(read(encoded(bits, "PNG"), Look(8, 8, 1))[..., 0], np.eye(8) * 255)


def test_cmyk_is_converted() -> None:
    red = Image.new("RGB", (8, 8), (200, 10, 10)).convert("CMYK")
    got = read(encoded(red, "JPEG", quality=100))
    assert np.abs(got.astype(int) - [200, 10, 10]).max() <= 4


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_on_the_background(mode: str) -> None:
    clear = Image.new("RGBA", (8, 8), (90, 90, 90, 0))
    clear.paste((10, 10, 10, 255), (0, 0, 4, 8))
    data = encoded(clear.quantize(4) if mode == "P" else clear.convert(mode), "PNG")
    got = read(data, LOOK._replace(background=(250, 20, 30)))
    assert got[0, 7].tolist() == [250, 20, 30]
    assert got[0, 0].tolist() == [10, 10, 10]


def test_half_transparent_is_mixed() -> None:
    data = encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 51)), "PNG")
    assert np.abs(read(data).astype(int) - 204).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation_is_applied(kind: str) -> None:
    image = Image.new("RGB", (16, 8))
    image.paste((255, 255, 255), (0, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(image, kind, exif=exif)
    got = read(data, Look(16, 8, 3))
    assert got[:7].min() > 240 and got[9:].max() < 15
    if kind == "JPEG":
        assert probe(lambda: data)[:2] == (16, 8)


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [Image.new("L", (8, 8), value) for value in (0, 255)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert probe(lambda: data).animated
    assert read(data).max() == 0


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(noise(), "PNG"))
    assert np.array_equal(decode(path, LOOK), np.asarray(noise()))


def test_scaling_covers_the_short_side_and_cuts_the_centre() -> None:
    stripes = Image.new("L", (40, 20), 0)
    stripes.paste(255, (10, 0, 30, 20))
    assert np.asarray(fit(stripes, 10, 10)).min() > 240
    assert np.asarray(fit(stripes.rotate(90, expand=True), 10, 10)).min() > 240
    assert fit(stripes, 20, 40) is stripes


@given(*[st.integers(1, 60)] * 4)
def test_any_size_fits_any_other(width: int, height: int, to_width: int, to_height: int) -> None:
    got = fit(Image.new("L", (width, height), 77), to_height, to_width)
    assert got.size == (to_width, to_height)
    assert set(got.tobytes()) == {77}


def test_a_large_jpeg_is_reduced_as_well_as_a_png() -> None:
    wave = np.sin(np.linspace(0, 20, 800))[None] * np.sin(np.linspace(0, 15, 640))[:, None]
    image = Image.fromarray((127 + 120 * wave).astype(np.uint8)).convert("RGB")
    look = Look(32, 32, 1)
    jpeg, png = read(encoded(image, "JPEG", quality=95), look), read(encoded(image, "PNG"), look)
    assert np.abs(jpeg.astype(int) - png).max() < 6


def bomb(side: int, kind: str) -> bytes:
    """A PNG that says it is side × side, with no pixels to speak of."""
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("side", [8_100, 10_000, 14_000, 60_000])
@pytest.mark.parametrize("work", [probe, lambda file: decode(file, LOOK)])
def test_bombs_are_refused_before_they_are_decoded(side: int, work: object) -> None:
    with strict_pillow(), pytest.raises(BadPicture, match="too large"):
        work(lambda: bomb(side, "PNG"))  # type: ignore[operator]


def test_a_bomb_is_refused_where_pillow_only_warns() -> None:
    with warnings.catch_warnings(), pytest.raises(BadPicture, match="too large"):
        warnings.simplefilter("ignore")
        probe(lambda: bomb(10_000, "PNG"))


def test_the_cap_itself_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "PIXEL_CAP", 64)
    assert read(encoded(noise(side=8), "PNG")).shape == (8, 8, 3)
    with pytest.raises(BadPicture):
        read(encoded(noise(side=9), "PNG"))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"hello, I am text", "is not a PNG"),
        (encoded(noise(side=64), "PNG")[:-2000], "is truncated"),
        (encoded(noise(side=64), "JPEG")[:-1000], "is truncated"),
        (encoded(noise(side=64), "BMP")[:-1000], "is truncated"),
        (encoded(noise(), "TIFF"), "is not a PNG"),
    ],
)
def test_what_is_wrong_is_said(data: bytes, says: str) -> None:
    with pytest.raises(BadPicture, match=says):
        read(data)


def test_missing_and_forbidden_files_are_bad_pictures(tmp_path: Path) -> None:
    with pytest.raises(BadPicture, match="can't be opened"):
        probe(tmp_path / "none.png")


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP"]),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    kept=st.floats(0, 1),
)
def test_mutated_files_give_pixels_or_bad_picture(
    kind: str, edits: list[tuple[float, int]], kept: float
) -> None:
    data = bytearray(encoded(noise(side=20), kind))
    for place, value in edits:
        data[int(place * len(data))] = value
    cut = bytes(data[: int(kept * len(data))]) if kept < 0.5 else bytes(data)
    with strict_pillow():
        for work in (lambda: probe(lambda: cut), lambda: read(cut)):
            try:
                got = work()
            except BadPicture as problem:
                assert str(problem)
            else:
                assert not isinstance(got, np.ndarray) or got.shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("text", "rgb"), [("white", (255, 255, 255)), ("#102030", (16, 32, 48)), ("#ABC", None)]
)
def test_colours(text: str, rgb: tuple[int, int, int] | None) -> None:
    assert color(text) == (rgb or (170, 187, 204))


def test_an_unknown_colour_is_refused() -> None:
    with pytest.raises(ConfigError, match="'whte' is no colour"):
        color("whte")
