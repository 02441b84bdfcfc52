"""One picture file to pixels, safely: few formats, a cap before decoding, one kind of failure.

Everything that Pillow can raise on a damaged file becomes `BadPicture`, whose text completes the
sentence "a.png …". Only the first frame of an animation is read.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, UnidentifiedImageError

from couette.errors import ConfigError, DataError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp"})
UNREAD_SUFFIXES = frozenset(
    {".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".jxl", ".svg", ".psd", ".ico", ".tga"}
)
PIXEL_CAP = 64_000_000
_LARGE = 16_000_000
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Threads decode together; pictures above _LARGE pixels go one at a time, so that memory is bounded.
_one_large = threading.Lock()

File = Path | Callable[[], bytes]
"""Where a picture's bytes come from: a path, or a function that gives them."""


class BadPicture(DataError):
    """A file that is not a picture that can be used; the text completes "a.png …"."""


class Header(NamedTuple):
    """What a file says of itself, before its pixels are decoded; sizes as it is to be viewed."""

    height: int
    width: int
    gray: bool
    transparent: bool
    animated: bool


class Look(NamedTuple):
    """What pictures are brought to."""

    height: int
    width: int
    channels: int
    background: tuple[int, int, int] = (255, 255, 255)


def color(text: str) -> tuple[int, int, int]:
    """A colour name or #rrggbb as (red, green, blue) in 0..255.

    Raises:
        ConfigError: neither a known name nor hexadecimal.
    """
    try:
        return ImageColor.getrgb(text)[:3]
    except ValueError:
        raise ConfigError(
            f"'{text}' is no colour; give a name such as white, or #rrggbb."
        ) from None


@contextmanager
def strict_pillow() -> Iterator[None]:
    """Pillow's bomb warning as an error and its other warnings silenced, in this process.

    Warning filters belong to the process, not to a thread: enter this once around the threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def probe(file: File) -> Header:
    """Read a picture's header.

    Raises:
        BadPicture: empty, not a picture, too large, or damaged so that its header can't be read.
    """
    with _opened(file) as image:
        # PNG keeps its orientation behind the pixels: reading it here would decode the picture.
        turned = image.format != "PNG" and _orientation(image) in (5, 6, 7, 8)
        width, height = image.size[::-1] if turned else image.size
        gray = image.mode in ("1", "L", "LA", "La") or image.mode.startswith("I")
        return Header(height, width, gray, image.has_transparency_data, _animated(image))


def decode(file: File, look: Look) -> NDArray[np.uint8]:
    """Decode a picture, scale it on its short side, crop its centre: uint8 (H, W, C).

    EXIF orientation is applied, transparency is laid on `look.background`, 16-bit values are
    rounded to 8. Scaling is Lanczos with antialiasing.

    Raises:
        BadPicture: as `probe`, or truncated or damaged.
    """
    with _opened(file) as image:
        large = image.width * image.height > _LARGE
        with _one_large if large else nullcontext():
            # A JPEG that is reduced a lot is decoded at a fraction of its size, at no visible loss.
            image.draft(None, (3 * max(look.height, look.width),) * 2)
            image.load()
            turn = _TURNS.get(_orientation(image))
            plain = _plain(image, look)
            upright = plain if turn is None else plain.transpose(turn)
            pixels = np.asarray(fit(upright, look.height, look.width))
    return pixels.reshape(look.height, look.width, look.channels)


def fit(image: Image.Image, height: int, width: int) -> Image.Image:
    """Scale so that the picture just covers `height` × `width`, and cut the centre out."""
    if image.size == (width, height):
        return image
    scale = max(height / image.height, width / image.width)
    inner = min(width / scale, image.width), min(height / scale, image.height)
    left, top = (image.width - inner[0]) / 2, (image.height - inner[1]) / 2
    box = (left, top, min(left + inner[0], image.width), min(top + inner[1], image.height))
    return image.resize((width, height), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


def _plain(image: Image.Image, look: Look) -> Image.Image:
    """8-bit gray or RGB, without transparency."""
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64).clip(0, 65535)
        image = Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8))
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, (*look.background, 255))
        canvas.alpha_composite(image.convert("RGBA"))
        image = canvas
    return image.convert("L" if look.channels == 1 else "RGB")


@contextmanager
def _opened(file: File) -> Iterator[Image.Image]:
    """The opened picture within its size cap; every failure inside becomes `BadPicture`."""
    try:
        with file.open("rb") if isinstance(file, Path) else io.BytesIO(file()) as stream:
            if not stream.seek(0, io.SEEK_END):
                raise BadPicture("is empty")
            stream.seek(0)
            with Image.open(stream, formats=FORMATS) as image:
                if image.width * image.height > PIXEL_CAP:
                    raise BadPicture(_too_large(f"{image.width:,}×{image.height:,} pixels"))
                yield image
    except BadPicture:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadPicture(_too_large("a decompression bomb, perhaps")) from None
    except UnidentifiedImageError:
        raise BadPicture(f"is not a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} picture") from None
    except MemoryError:
        raise BadPicture("does not fit in memory") from None
    except (FileNotFoundError, PermissionError) as error:
        raise BadPicture(f"can't be opened ({error.strerror})") from None
    except Exception as error:  # Pillow's parsers raise many kinds on damaged files
        cut = isinstance(error, (EOFError, struct.error)) or "truncated" in str(error).lower()
        raise BadPicture("is truncated" if cut else "is damaged") from None


def _too_large(what: str) -> str:
    return f"is too large ({what}; the most is {PIXEL_CAP // 1_000_000} million)"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF data: the pixels are still good
        return 1


def _animated(image: Image.Image) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a damaged second frame: the first is still good
        return False
