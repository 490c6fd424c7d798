# Licensed under the Apache License, Version 2.0.
"""From a file or a shard member to pixels, whatever the file holds."""
from io import BytesIO
from typing import Mapping, NamedTuple, Optional, Tuple

import cv2
import numpy as np
from mmengine.fileio import get
from PIL import ExifTags, Image

# A COCO image has 0.3 million pixels; a 48-megapixel photo is still read.
MAX_PIXELS = 64_000_000

_REDUCED_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
# Start-of-frame markers of ISO/IEC 10918-1, table B.1: C0 to CF without
# DHT (C4), JPG (C8) and DAC (CC).
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_SCAN = 0xDA
# What Pillow raises at a broken file; of an AVIF it is a RuntimeError.
_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, RuntimeError)
# Markers without a length: TEM, RST0-7 and SOI.
_JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}


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

    ``scan`` is the offset in bytes of a JPEG's first scan, else None.
    ``width`` and ``height`` are in pixels, before any EXIF rotation.
    """

    width: int
    height: int
    scan: Optional[int]


def _jpeg_header(data: bytes) -> ImageHeader:
    """Walk the segments of a JPEG up to its first scan."""
    position, size = 2, None
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in _JPEG_BARE:
            position += 2
        elif marker == _JPEG_SCAN:
            if size is None:
                break
            return ImageHeader(size[0], size[1], position)
        else:
            if marker in _JPEG_FRAMES:
                height = int.from_bytes(data[position + 5:position + 7], 'big')
                width = int.from_bytes(data[position + 7:position + 9], 'big')
                size = width, height
            position += 2 + int.from_bytes(data[position + 2:position + 4],
                                           'big')
    raise UnreadableImageError(
        'a JPEG without a frame and a scan', reason='broken header')


def read_header(data: bytes) -> ImageHeader:
    """Read the size of an encoded image without decoding it.

    Args:
        data (bytes): An encoded image of any format that Pillow knows.

    Returns:
        ImageHeader: Width and height in pixels, and a JPEG's first scan.

    Raises:
        UnreadableImageError: If it is no image or its header is broken.
    """
    if data[:2] == b'\xff\xd8':
        return _jpeg_header(data)
    try:
        with Image.open(BytesIO(data)) as image:
            return ImageHeader(image.width, image.height, None)
    except Image.DecompressionBombError as error:
        raise UnreadableImageError(str(error), reason='too large') from error
    except _PILLOW_ERRORS as error:
        raise UnreadableImageError(
            f'not an image, {len(data)} bytes ({error})',
            reason='not an image') from error


def _check_complete(data: bytes, header: ImageHeader) -> None:
    """Raise where a file ends early; OpenCV would return a half-grey image.

    In the entropy-coded part of a JPEG, FF is followed by 00 or a marker, so
    FF D9 after the first scan is the end of the image and nothing else.
    """
    if header.scan is not None:
        complete = data.rfind(b'\xff\xd9', header.scan) != -1
    elif data[:4] == b'\x89PNG':
        complete = data.rfind(b'IEND') != -1
    else:
        try:
            with Image.open(BytesIO(data)) as image:
                image.load()
            complete = True
        except _PILLOW_ERRORS:
            complete = False
    if not complete:
        raise UnreadableImageError(
            f'cut short: no end of the image within {len(data)} bytes',
            reason='cut short')


def _reduction(header: ImageHeader, scale: Optional[Tuple[int, int]],
               max_pixels: int) -> int:
    """The divisor, 1, 2, 4 or 8, at which a file should be decoded."""
    reduction = 1
    if scale is not None:
        factor = min(scale[0] / header.width, scale[1] / header.height)
        reduction = next((r for r in (8, 4, 2) if factor * r <= 1), 1)
    if header.scan is None:
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
            f'max_pixels={max_pixels} at an eighth of the size')
    return reduction


def _checked_header(data: bytes, scale: Optional[Tuple[int, int]],
                    max_pixels: int) -> Tuple[ImageHeader, int]:
    """Header of an image that can be decoded, and the divisor to do it at."""
    header = read_header(data)
    if header.width < 1 or header.height < 1:
        raise UnreadableImageError(
            f'{header.width}x{header.height} pixels, expected at least 1x1',
            reason='broken header')
    reduction = _reduction(header, scale, max_pixels)
    _check_complete(data, header)
    return header, reduction


def image_size(data: bytes, max_pixels: int = MAX_PIXELS) -> Tuple[int, int]:
    """The size at which :func:`decode_image` gives an image, not decoding it.

    Args:
        data (bytes): The encoded image.
        max_pixels (int): See :func:`decode_image`.

    Returns:
        tuple[int, int]: Width and height in pixels, after an EXIF rotation.

    Raises:
        UnreadableImageError: If it is no image, cut short, or too large.
    """
    header, _ = _checked_header(data, None, max_pixels)
    size = header.width, header.height
    try:
        with Image.open(BytesIO(data)) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except (*_PILLOW_ERRORS, Image.DecompressionBombError):
        # OpenCV may still read what Pillow does not.
        orientation = 1
    # Values 5 to 8 of EXIF 2.3, table 6, exchange rows and columns.
    return size[::-1] if orientation in (5, 6, 7, 8) else size


def decode_image(
        data: bytes,
        scale: Optional[Tuple[int, int]] = None,
        max_pixels: int = MAX_PIXELS) -> Tuple[np.ndarray, Tuple[int, int]]:
    """Decode an image, a JPEG at the smallest size that serves ``scale``.

    Grayscale, palette, CMYK, alpha and 16-bit files all become 8-bit BGR;
    an EXIF rotation is applied, as ``mmcv.imread`` does.

    Args:
        data (bytes): The encoded image.
        scale (tuple[int, int], optional): (width, height) in pixels that the
            image will be fitted into with its ratio kept. A JPEG is then
            decoded at 1/2, 1/4 or 1/8 where that still is no smaller than the
            fitted image.
        max_pixels (int): The largest number of pixels to decode. A larger
            JPEG is decoded at a reduced size, anything else is refused.

    Returns:
        tuple: The image (H, W, 3), uint8, BGR, and the (height, width) of
        the file at full size.

    Raises:
        UnreadableImageError: If it is no image, cut short, or too large.
    """
    header, reduction = _checked_header(data, scale, max_pixels)
    try:
        image = cv2.imdecode(
            np.frombuffer(data, np.uint8), _REDUCED_FLAGS[reduction])
    except cv2.error as error:
        raise UnreadableImageError(f'OpenCV cannot decode it ({error})') \
            from error
    if image is None:
        raise UnreadableImageError('OpenCV cannot decode it')
    if reduction == 1:
        return image, image.shape[:2]
    full = header.height, header.width
    rotated = (image.shape[0] > image.shape[1]) != (full[0] > full[1]) \
        and image.shape[0] != image.shape[1]
    return image, full[::-1] if rotated else full


def read_image(
        sample: Mapping,
        scale: Optional[Tuple[int, int]] = None,
        max_pixels: int = MAX_PIXELS,
        backend_args: Optional[dict] = None
) -> Tuple[np.ndarray, Tuple[int, int]]:
    """Read the image of a sample from its file or its shard.

    Args:
        sample (dict): Holds ``img_path``, the file; or, for a member of an
            uncompressed tar, ``shard_path`` with ``shard_offset`` and
            ``shard_size`` in bytes (``img_path`` then only names it).
        scale, max_pixels: See :func:`decode_image`.
        backend_args (dict, optional): MMEngine's file backend of
            ``img_path``.

    Returns:
        tuple: The image (H, W, 3), uint8, BGR, and the full (height, width).

    Raises:
        UnreadableImageError: If it is missing or cannot be decoded; the
            message names ``img_path``.
    """
    path = sample['img_path']
    try:
        if 'shard_path' in sample:
            with open(sample['shard_path'], 'rb') as shard:
                shard.seek(sample['shard_offset'])
                data = shard.read(sample['shard_size'])
        elif backend_args is None and '://' not in path:
            # As MMEngine's local backend does, without looking for it.
            with open(path, 'rb') as file:
                data = file.read()
        else:
            data = get(path, backend_args=backend_args)
        return decode_image(data, scale, max_pixels)
    except (OSError, UnreadableImageError) as error:
        raise UnreadableImageError(
            f'img_path={str(path)!r}: {error}') from error
