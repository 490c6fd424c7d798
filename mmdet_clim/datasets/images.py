# Licensed under the Apache License, Version 2.0.
"""From the bytes of an image file to pixels, whatever the file holds.

It imports nothing else of the package: tools/run_onnx.py reads images by it
where neither PyTorch nor the package is installed.
"""
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import NamedTuple, cast

import cv2
import numpy as np
from PIL import ExifTags, Image
from PIL.TiffImagePlugin import TiffImageFile

#: What Pillow may open; of its other formats, EPS starts Ghostscript.
FORMATS = ('AVIF', 'BMP', 'GIF', 'JPEG', 'PNG', 'TIFF', 'WEBP')
# A COCO image has 0.3 million pixels; a 48-megapixel photo is still read.
MAX_PIXELS = 64_000_000

_REDUCED_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# EXIF 2.3, table 6: what makes an image upright.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda image: cv2.flip(image, 1),
    3: lambda image: cv2.rotate(image, cv2.ROTATE_180),
    4: lambda image: cv2.flip(image, 0),
    5: cv2.transpose,
    6: lambda image: cv2.rotate(image, cv2.ROTATE_90_CLOCKWISE),
    7: lambda image: cv2.flip(cv2.transpose(image), -1),
    8: lambda image: cv2.rotate(image, cv2.ROTATE_90_COUNTERCLOCKWISE),
}
_EXIF_MARKS = (b'Exif\0', b'eXIf', b'EXIF')
# Start-of-frame markers of ISO/IEC 10918-1, table B.1: C0 to CF without
# DHT (C4), JPG (C8) and DAC (CC). Those that are decoded: baseline, extended
# and progressive, with Huffman codes.
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_DECODED = (0xC0, 0xC1, 0xC2)
_JPEG_PROGRESSIVE = 0xC2
_JPEG_SCAN = 0xDA
# Markers without a length: TEM, RST0-7 and SOI.
_JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}
# Each scan goes through all coefficients. Encoders write about ten.
_MAX_SCANS = 100
# What the coefficients of a JPEG may take, per pixel of max_pixels: 16 bits
# in each of three components.
_COEFFICIENT_BYTES = 6
# Of a TIFF: 16 bits in each of four samples.
_MAX_SAMPLE_BITS = 64
_TIFF_BITS, _TIFF_SAMPLES, _TIFF_TILE = 258, 277, (322, 323)


class UnreadableImageError(ValueError):
    """An image that is missing, broken, cut short or too large to decode.

    Args:
        message (str): What is wrong, with the file or the numbers.
        reason (str): The same in a few words, to count by.
    """

    def __init__(self, message: str, reason: str = 'unreadable') -> None:
        super().__init__(message)
        self.reason = reason


class ImageHeader(NamedTuple):
    """What the first bytes of an image file say.

    ``width`` and ``height`` are in pixels, before any EXIF rotation. Of a
    JPEG, ``scan`` is the offset in bytes of the first scan, ``blocks`` the
    number of 8x8 blocks of all components, and ``buffered`` whether a decoder
    keeps the coefficients of all of them at full size.
    """

    width: int
    height: int
    kind: str
    scan: int = 0
    blocks: int = 0
    buffered: bool = False


def _jpeg_header(data: bytes) -> ImageHeader:
    """Walk the segments of a JPEG up to its first scan."""
    position, frame = 2, None
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _JPEG_BARE:
            position += 2
        elif marker == _JPEG_SCAN:
            if frame is None or position + 5 > len(data):
                break
            width, height, blocks, kind, components = frame
            return ImageHeader(
                width, height, 'JPEG', position, blocks,
                kind == _JPEG_PROGRESSIVE or data[position + 4] < components)
        else:
            length = int.from_bytes(data[position + 2:position + 4], 'big')
            if marker in _JPEG_FRAMES:
                frame = _jpeg_frame(marker,
                                    data[position + 4:position + 2 + length])
            position += 2 + length
    raise UnreadableImageError(
        'a JPEG without a frame and a scan', reason='broken header')


def _jpeg_frame(marker: int, frame: bytes) -> tuple[int, int, int, int, int]:
    """Width, height, blocks, kind and components of a frame header."""
    if marker not in _JPEG_DECODED:
        raise UnreadableImageError(
            f'a JPEG of kind SOF{marker - 0xC0}, expected baseline or '
            'progressive with Huffman codes',
            reason='unusual JPEG')
    count = frame[5] if len(frame) > 5 else 0
    factors = [(f >> 4, f & 15) for f in frame[7:6 + 3 * count:3]]
    if not 0 < count == len(factors) or not all(map(all, factors)):
        raise UnreadableImageError(
            'a JPEG with a broken frame', reason='broken header')
    height = int.from_bytes(frame[1:3], 'big')
    width = int.from_bytes(frame[3:5], 'big')
    across = 8 * max(h for h, _ in factors)
    down = 8 * max(v for _, v in factors)
    # Rounded up, of each component.
    blocks = sum(-(-width * h // across) * -(-height * v // down)
                 for h, v in factors)
    return width, height, blocks, marker, count


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """The image as Pillow opens it, its errors being ours.

    Of broken files Pillow raises, beside its own errors, whatever its plugins
    stumble over: IndexError, struct.error, RuntimeError, MemoryError.
    """
    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            yield image
    except UnreadableImageError:
        raise
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(str(error), reason='too large') from error
    except Image.UnidentifiedImageError as error:
        raise UnreadableImageError(
            f'not an image of {", ".join(FORMATS)}, {len(data)} bytes',
            reason='not an image') from error
    except Exception as error:
        raise UnreadableImageError(
            f'broken, {len(data)} bytes ({type(error).__name__}: {error})',
            reason='broken') from error


def read_header(data: bytes) -> ImageHeader:
    """Read the size of an encoded image without decoding it.

    Args:
        data (bytes): An encoded image of one of :data:`FORMATS`.

    Returns:
        ImageHeader: Width and height in pixels, and more of a JPEG.

    Raises:
        UnreadableImageError: If it is no image or its header is broken.
    """
    if data[:2] == b'\xff\xd8':
        header = _jpeg_header(data)
    else:
        with _opened(data) as image:
            header = ImageHeader(image.width, image.height, str(image.format))
    if header.width < 1 or header.height < 1:
        raise UnreadableImageError(
            f'{header.width}x{header.height} pixels, expected at least 1x1',
            reason='broken header')
    return header


def _check_jpeg(data: bytes, header: ImageHeader, max_pixels: int) -> None:
    """Raise where a JPEG ends early or takes more than its pixels.

    In the entropy-coded part, FF is followed by 00 or a marker, so FF D9
    after the first scan is the end of the image and nothing else. Of a block,
    the first scan has at least one bit, and a sequential one two.
    """
    least = header.scan + header.blocks // (8 if header.buffered else 4)
    if data.rfind(b'\xff\xd9', header.scan) == -1 or len(data) < least:
        raise _cut_short(data)
    if not header.buffered:
        return
    needed = 128 * header.blocks
    if needed > _COEFFICIENT_BYTES * max_pixels:
        raise UnreadableImageError(
            f'{header.width}x{header.height} pixels in several scans, which '
            f'take {needed} bytes, expected at most {_COEFFICIENT_BYTES} for '
            f'each of max_pixels={max_pixels}',
            reason='too large')
    scans = data.count(b'\xff\xda', header.scan)
    if scans > _MAX_SCANS:
        raise UnreadableImageError(
            f'a JPEG of {scans} scans, expected at most {_MAX_SCANS}',
            reason='unusual JPEG')


def _check_tiff(image: Image.Image, max_pixels: int) -> None:
    """Raise where the tiles or samples of a TIFF take more than its pixels."""
    if image.mode == 'LAB':
        raise UnreadableImageError(
            'a TIFF in CIE L*a*b*, expected grey, RGB or CMYK',
            reason='unusual TIFF')
    tags = cast(TiffImageFile, image).tag_v2
    bits = tags.get(_TIFF_SAMPLES, 1) * max(tags.get(_TIFF_BITS, (1, )))
    if bits > _MAX_SAMPLE_BITS:
        raise UnreadableImageError(
            f'a TIFF of {bits} bits in a pixel, expected at most '
            f'{_MAX_SAMPLE_BITS}',
            reason='unusual TIFF')
    across, down = (tags.get(tag, 1) for tag in _TIFF_TILE)
    if across * down > max_pixels:
        raise UnreadableImageError(
            f'a TIFF of tiles of {across}x{down} pixels, expected at most '
            f'max_pixels={max_pixels}',
            reason='too large')


def _check_complete(data: bytes, header: ImageHeader, max_pixels: int) -> None:
    """Raise where a file ends early; OpenCV would return a half-grey image."""
    if header.kind == 'PNG':
        if data.rfind(b'IEND') == -1:
            raise _cut_short(data)
        return
    with _opened(data) as image:
        if header.kind == 'TIFF':
            _check_tiff(image, max_pixels)
        try:
            image.load()
        except Exception as error:
            # See _opened.
            raise _cut_short(data) from error


def _cut_short(data: bytes) -> UnreadableImageError:
    return UnreadableImageError(
        f'cut short: no end of the image within {len(data)} bytes',
        reason='cut short')


def _reduction(header: ImageHeader, max_pixels: int) -> int:
    """The divisor, 1, 2, 4 or 8, at which a file has to be decoded."""
    reduction = 1
    if header.kind != 'JPEG':
        # Only JPEG decodes to a smaller size without the full one in memory.
        if header.width * header.height > max_pixels:
            raise UnreadableImageError(
                f'{header.width}x{header.height} pixels, expected at most '
                f'max_pixels={max_pixels}',
                reason='too large')
        return 1
    while header.width * header.height > max_pixels * reduction**2:
        reduction *= 2
    if reduction > 8:
        raise UnreadableImageError(
            f'{header.width}x{header.height} pixels, expected at most '
            f'max_pixels={max_pixels} at an eighth of the size',
            reason='too large')
    return reduction


def _fitting_reduction(size: tuple[int, int], scale: tuple[int, int]) -> int:
    """The largest divisor that leaves no less than fits ``scale``.

    Args:
        size, scale: (width, height) in pixels, of the upright image.
    """
    factor = min(scale[0] / size[0], scale[1] / size[1])
    return next((r for r in (8, 4, 2) if factor * r <= 1), 1)


def _checked_header(data: bytes, max_pixels: int) -> tuple[ImageHeader, int]:
    """Header of an image that can be decoded, and its least divisor."""
    header = read_header(data)
    reduction = _reduction(header, max_pixels)
    if header.kind == 'JPEG':
        _check_jpeg(data, header, max_pixels)
    else:
        _check_complete(data, header, max_pixels)
    return header, reduction


def image_size(data: bytes, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """The size at which :func:`decode_image` gives an image, not decoding it.

    Args:
        data (bytes): The encoded image.
        max_pixels (int): See :func:`decode_image`.

    Returns:
        tuple[int, int]: Width and height in pixels, after an EXIF rotation.

    Raises:
        UnreadableImageError: If it is no image, cut short, or too large.
    """
    header, _ = _checked_header(data, max_pixels)
    return _upright_size(header, _orientation(data, header))


def _orientation(data: bytes, header: ImageHeader) -> int:
    """The EXIF orientation of an image, 1 to 8; 1 where it is not told."""
    if header.kind != 'AVIF' and not any(mark in data[:header.scan or None]
                                         for mark in _EXIF_MARKS):
        return 1
    try:
        with _opened(data) as image:
            value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except UnreadableImageError:
        # The rest of it may be read all the same.
        return 1
    return value if value in tuple(_UPRIGHT) else 1


def _upright_size(header: ImageHeader, orientation: int) -> tuple[int, int]:
    """Width and height when it is upright; Pillow gives a TIFF's so."""
    turned = orientation >= 5 and header.kind != 'TIFF'
    return (header.height, header.width) if turned else (header.width,
                                                         header.height)


def _has_alpha(data: bytes) -> bool:
    """Whether an image has 8 bits of transparency."""
    with _opened(data) as image:
        return image.mode == 'RGBA'


def decode_image(
        data: bytes,
        scale: tuple[int, int] | None = None,
        max_pixels: int = MAX_PIXELS) -> tuple[np.ndarray, tuple[int, int]]:
    """Decode an image, a JPEG at the smallest size that serves ``scale``.

    Grayscale, palette, CMYK, alpha and 16-bit files all become 8-bit BGR;
    an EXIF rotation is applied, as ``mmcv.imread`` does. Samples of 32 bits
    have no range that all agree on, and are refused.

    What it takes of memory beside the file is at most 24 bytes for each of
    ``max_pixels``, whatever the file says.

    Args:
        data (bytes): The encoded image, of one of :data:`FORMATS`.
        scale (tuple[int, int], optional): (width, height) in pixels that the
            image will be fitted into with its ratio kept. A JPEG is then
            decoded at 1/2, 1/4 or 1/8 where that still is no smaller than the
            fitted image.
        max_pixels (int): The largest number of pixels to decode. A larger
            JPEG is decoded at a reduced size, unless it is progressive: its
            coefficients take memory at full size. Anything else is refused.

    Returns:
        tuple: The image (H, W, 3), uint8, BGR, and the (height, width) of
        the file at full size.

    Raises:
        UnreadableImageError: If it is no image, cut short, or too large.
    """
    header, reduction = _checked_header(data, max_pixels)
    orientation = _orientation(data, header)
    size = _upright_size(header, orientation)
    if scale is not None and header.kind == 'JPEG':
        reduction = max(reduction, _fitting_reduction(size, scale))
    if header.kind == 'AVIF' or header.kind == 'TIFF' and _has_alpha(data):
        # OpenCV has AVIF in some builds, and darkens a TIFF by its alpha.
        with _opened(data) as opened:
            image = np.asarray(opened.convert('RGB'))[..., ::-1]
    else:
        flags = _REDUCED_FLAGS[reduction] | cv2.IMREAD_IGNORE_ORIENTATION
        try:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error as error:
            reason = ' '.join(str(error).split())
            raise UnreadableImageError(
                f'OpenCV cannot decode it ({reason})') from error
    if image is None:
        raise UnreadableImageError('OpenCV cannot decode it')
    # OpenCV turns a TIFF whatever the flags.
    if orientation in _UPRIGHT and header.kind != 'TIFF':
        image = _UPRIGHT[orientation](image)
    full = size[::-1]
    if image.shape[:2] != tuple(-(-side // reduction) for side in full):
        raise UnreadableImageError(
            f'{image.shape[1]}x{image.shape[0]} pixels were decoded, but '
            f'its header says {full[1]}x{full[0]}',
            reason='broken header')
    return np.ascontiguousarray(image), full
