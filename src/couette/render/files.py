"""Picture files, whole or not there, that remember what made them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, PngImagePlugin

from couette import storage
from couette.errors import DataError, InputError

_LONGEST_KEY = 79
_FASTEST = 50.0


def save(image: Image.Image, path: str | Path, *, text: Mapping[str, str] | None = None) -> None:
    """Write a PNG, with `text` as its metadata (settings, seed, the command).

    Args:
        text: keys of 1 to 79 printable Latin-1 characters; values of any characters.

    Raises:
        InputError: a key that PNG can't hold.
        StorageError: the disk is full, read-only or refuses; `path` is as it was.
    """
    info = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        _check_key(key)
        if _is_latin(value):
            info.add_text(key, value)
        else:
            info.add_itxt(key, value)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=info)
    storage.write_bytes(Path(path), buffer.getvalue())


def read_text(path: str | Path) -> dict[str, str]:
    """The metadata of a PNG, as `save` was given it.

    Raises:
        DataError: the file is missing, damaged, or no PNG.
    """
    try:
        with Image.open(path, formats=["PNG"]) as image:
            image.load()
            found: Mapping[str, str] = getattr(image, "text", {})
            return {key: str(value) for key, value in found.items()}
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} can't be read as a PNG ({error}); check the path.") from None


def save_gif(
    frames: Sequence[Image.Image],
    path: str | Path,
    *,
    fps: float = 12.0,
    hold_last: float = 2.0,
    loop: bool = True,
) -> None:
    """Write frames as a GIF. Gray frames keep their exact values, others up to 256 colours each.

    Args:
        frames: at least one; all of one size. Equal neighbours become one longer frame.
        fps: frames a second, above 0 and at most 50 (viewers slow down anything faster). GIF
            counts in hundredths of a second, to which 1/fps is rounded.
        hold_last: how many more seconds the last frame stands.

    Raises:
        InputError: no frames, frames of different sizes, or a speed out of range.
        StorageError: the disk is full, read-only or refuses; `path` is as it was.
    """
    if not frames:
        raise InputError("There are no frames to write; give at least one.")
    if len({frame.size for frame in frames}) > 1:
        raise InputError("The frames differ in size; draw them all with the same settings.")
    if not 0 < fps <= _FASTEST:
        raise InputError(f"{fps} frames a second can't be shown; choose above 0 and at most 50.")
    each = max(2, round(100 / fps)) * 10
    durations = [each] * (len(frames) - 1) + [each + round(100 * max(hold_last, 0.0)) * 10]
    first, *rest = [_indexed(frame) for frame in frames]
    buffer = io.BytesIO()
    repeat = {"loop": 0} if loop else {}
    first.save(
        buffer, "GIF", save_all=True, append_images=rest, duration=durations, disposal=1, **repeat
    )
    storage.write_bytes(Path(path), buffer.getvalue())


def _indexed(frame: Image.Image) -> Image.Image:
    """The frame in at most 256 colours, without dithering, which would add noise of its own."""
    frame = frame.convert("RGB")
    red, green, blue = frame.split()
    if red.tobytes() == green.tobytes() == blue.tobytes():
        return red
    return frame.quantize(256, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _check_key(key: str) -> None:
    if not 0 < len(key) <= _LONGEST_KEY or not (_is_latin(key) and key.isprintable()):
        raise InputError(
            f"'{key[:_LONGEST_KEY]}' can't be a key in a PNG; use 1 to 79 printable characters of "
            "Latin-1."
        )


def _is_latin(text: str) -> bool:
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return False
    return True
