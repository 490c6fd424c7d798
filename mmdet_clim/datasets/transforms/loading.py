# Licensed under the Apache License, Version 2.0.
"""Loading of images."""
from dataclasses import dataclass

import numpy as np
from mmcv.transforms import BaseTransform

from mmdet_clim.checks import check_range, check_size
from mmdet_clim.datasets.image_files import read_image
from mmdet_clim.datasets.images import MAX_PIXELS, UnreadableImageError
from mmdet_clim.registry import TRANSFORMS


@TRANSFORMS.register_module()
@dataclass(eq=False)
class LoadImageText(BaseTransform):
    """Load the image of a sample from a file or a shard.

    Required Keys:

    - img_path
    - shard_path, shard_offset, shard_size (optional, a member of a tar)

    Added Keys:

    - img ((H, W, 3), uint8 or float32, BGR)
    - img_shape ((H, W) of ``img``)
    - ori_shape ((H, W) of the file at full size)

    An image that cannot be read raises
    :class:`~mmdet_clim.datasets.UnreadableImageError`, which the data sets of
    this package turn into another sample. They also put this transform in the
    place of MMCV's ``LoadImageFromFile``, which config files name.

    Args:
        scale (tuple[int, int], optional): (width, height) in pixels that a
            later transform fits the image into. A JPEG much larger than that
            is decoded at 1/2, 1/4 or 1/8 of its size, which is faster. Only
            for samples without boxes: those are not scaled along.
        max_pixels (int): The largest number of pixels to decode. Of a
            sample with captions, a larger JPEG is decoded at a reduced size;
            other files count as unreadable.
        to_float32 (bool): Give float32 values.
        backend_args (dict, optional): MMEngine's file backend. Without it an
            address such as ``http://`` is unreadable.

    Raises:
        ValueError: If ``scale`` or ``max_pixels`` is not positive.
    """

    scale: tuple[int, int] | None = None
    max_pixels: int = MAX_PIXELS
    to_float32: bool = False
    backend_args: dict | None = None

    def __post_init__(self) -> None:
        check_size(scale=self.scale)
        check_range(1, max_pixels=self.max_pixels)
        self.scale = self.scale and (self.scale[0], self.scale[1])

    def transform(self, results: dict) -> dict:
        """Load the image.

        Raises:
            UnreadableImageError: If the image cannot be read.
        """
        if self.scale is not None and len(results.get('instances', ())):
            raise ValueError(
                "scale: boxes in 'instances' would not be scaled with the "
                f"image, got {len(results['instances'])} of them; expected "
                'scale=None for samples with boxes')
        image, full_shape = read_image(results, self.scale, self.max_pixels,
                                       self.backend_args)
        if self.scale is None and 'captions' not in results and \
                image.shape[:2] != full_shape:
            # Boxes are in pixels of the file.
            raise UnreadableImageError(
                f"img_path={str(results['img_path'])!r}: {full_shape[1]}x"
                f'{full_shape[0]} pixels, expected at most '
                f'max_pixels={self.max_pixels}',
                reason='too large')
        if self.to_float32:
            image = image.astype(np.float32)
        results['img'] = image
        results['img_shape'] = image.shape[:2]
        results['ori_shape'] = tuple(full_shape)
        return results
