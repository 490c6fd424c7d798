# Licensed under the Apache License, Version 2.0.
"""The crops that CLIP is trained on."""
import math
from dataclasses import dataclass

import cv2
import numpy as np
from mmcv.transforms import BaseTransform
from mmcv.transforms.utils import cache_randomness
from PIL import Image

from mmdet_clim.checks import check_whole
from mmdet_clim.registry import TRANSFORMS


@TRANSFORMS.register_module()
@dataclass(eq=False)
class RandomResizedCrop(BaseTransform):
    """Cut a random part out of an image and resize it to a square.

    torchvision's ``RandomResizedCrop``, as open_clip trains with it: bicubic,
    with antialiasing where the crop shrinks. The whole square is image, so
    that as a tile of a mosaic it fills its cell (REFERENCE.md, section 4:
    224 pixels, 0.9 to 1.0 of the area, no flip). Boxes are not cropped along.

    Required Keys:

    - img ((H, W, 3), uint8)

    Modified Keys:

    - img ((size, size, 3), uint8)
    - img_shape ((size, size))

    Args:
        size (int): Side of the square in pixels.
        scale (tuple[float, float]): Least and largest area of the crop, as a
            fraction of the image's.
        ratio (tuple[float, float]): Least and largest width / height of the
            crop, which is what it is squashed by. An image that is narrower
            or wider than this is cropped to the nearest ratio.

    Raises:
        ValueError: If an argument is out of its range, a sample has boxes, or
            its image is another array.
    """

    size: int
    scale: tuple[float, float] = (0.9, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        check_whole(size=self.size)
        for name, pair, most in (('scale', self.scale, 1),
                                 ('ratio', self.ratio, math.inf)):
            if len(pair) != 2 or not 0 < pair[0] <= pair[1] <= most:
                raise ValueError(f'{name}: expected 0 < least <= largest <= '
                                 f'{most}, got {pair}')

    @cache_randomness
    def _crop(self, image: Image.Image) -> tuple[int, int, int, int]:
        """Top, left, height and width of the crop in pixels."""
        # torchvision comes with open_clip, which a project without CLIP need
        # not have.
        from torchvision.transforms import RandomResizedCrop as Torchvision
        return Torchvision.get_params(image, self.scale, self.ratio)

    def transform(self, results: dict) -> dict:
        """Crop one image."""
        if len(results.get('gt_bboxes', ())):
            raise ValueError("RandomResizedCrop: 'gt_bboxes' would not be "
                             f"cropped along, got {len(results['gt_bboxes'])}")
        pixels = results['img']
        if pixels.dtype != np.uint8 or pixels.shape[2:] != (3, ):
            raise ValueError(
                "RandomResizedCrop: expected 'img' of (H, W, 3) uint8, got "
                f'{pixels.shape} {pixels.dtype}')
        image = Image.fromarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
        top, left, height, width = self._crop(image)
        crop = image.crop((left, top, left + width, top + height)).resize(
            (self.size, self.size), Image.Resampling.BICUBIC)
        results['img'] = cv2.cvtColor(np.asarray(crop), cv2.COLOR_RGB2BGR)
        results['img_shape'] = (self.size, self.size)
        return results
