# Licensed under the Apache License, Version 2.0.
"""From the place of an image, a file or a part of a shard, to its pixels."""
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from mmengine.fileio import get

from .images import MAX_PIXELS, UnreadableImageError, decode_image
from .regular_files import read_regular


def read_image(
        sample: Mapping,
        scale: tuple[int, int] | None = None,
        max_pixels: int = MAX_PIXELS,
        backend_args: dict | None = None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Read the image of a sample from its file or its shard.

    Args:
        sample (dict): Holds ``img_path``, the file; or, for a member of an
            uncompressed tar, ``shard_path`` with ``shard_offset`` and
            ``shard_size`` in bytes; or ``img_bytes``, the encoded image
            (``img_path`` then only names it).
        scale, max_pixels: See :func:`~mmdet_clim.datasets.decode_image`.
        backend_args (dict, optional): MMEngine's file backend of
            ``img_path``. Without it an address such as ``http://`` is
            refused: it may have come with the data.

    Returns:
        tuple: The image (H, W, 3), uint8, BGR, and the full (height, width).

    Raises:
        UnreadableImageError: If it is missing or cannot be decoded; the
            message names ``img_path``.
    """
    path = str(sample['img_path'])
    try:
        if 'img_bytes' in sample:
            data = sample['img_bytes']
        elif 'shard_path' in sample:
            data = read_regular(sample['shard_path'], sample['shard_offset'],
                                sample['shard_size'])
        elif backend_args is not None:
            data = get(path, backend_args=backend_args)
        elif '://' in path:
            raise UnreadableImageError(
                'a URL, expected a file; nothing is downloaded without '
                'backend_args',
                reason='a URL')
        else:
            data = read_regular(path)
        return decode_image(data, scale, max_pixels)
    except UnreadableImageError as error:
        raise UnreadableImageError(f'img_path={path!r}: {error}',
                                   error.reason) from error
    except FileNotFoundError as error:
        raise UnreadableImageError(f'img_path={path!r}: no such file',
                                   'missing') from error
    except OSError as error:
        raise UnreadableImageError(f'img_path={path!r}: {error}') from error


def read_image_file(path: str | Path) -> np.ndarray:
    """Read the image of a file.

    Returns:
        ndarray: The image (H, W, 3), uint8, BGR.

    Raises:
        FileNotFoundError: If there is none.
        UnreadableImageError: If it cannot be decoded at full size.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f'{path} does not exist')
    image, full = read_image(dict(img_path=path))
    if image.shape[:2] != full:
        raise UnreadableImageError(
            f'{path}: {full[1]}x{full[0]} pixels, expected at most '
            f'{MAX_PIXELS}',
            reason='too large')
    return image
