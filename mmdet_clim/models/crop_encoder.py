# Licensed under the Apache License, Version 2.0.
from typing import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from mmdet_clim.checks import check_range

from .frozen_tower import Constants, FrozenTower
from .maps import aligned_regions
from .open_clip_models import create_clip


class CropEncoder(FrozenTower):
    """Embeds crops of a network's input by a frozen CLIP image encoder.

    A crop is scaled to the encoder's square, averaged where it shrinks. The
    encoder is in no state dict and does not learn.

    Args:
        model (str): Name of an open_clip model, see
            :func:`~mmdet_clim.models.open_clip_models.create_clip`.
        data_preprocessor (Mapping): Config of the detector's data
            preprocessor, whose ``mean`` and ``std`` are undone and whose
            ``bgr_to_rgb`` tells the order of the channels.
        pretrained (str, optional): Checkpoint or tag of the model.
        batch_size (int): Crops encoded at a time.

    Raises:
        ValueError: If ``data_preprocessor`` has no mean and std, or
            ``batch_size`` is not positive.
    """

    def __init__(self,
                 model: str,
                 data_preprocessor: Mapping,
                 pretrained: str | None = None,
                 batch_size: int = 64) -> None:
        for key in ('mean', 'std'):
            if not data_preprocessor.get(key):
                raise ValueError(
                    f'data_preprocessor: expected {key} of three channels, '
                    f'got {data_preprocessor.get(key)}')
        check_range(1, batch_size=batch_size)
        visual = create_clip(model, pretrained, type(self).__name__).visual
        super().__init__(visual)
        settings = visual.preprocess_cfg
        size = settings['size']
        self.size = (size, size) if isinstance(size, int) else tuple(size)
        self.is_rgb = bool(data_preprocessor.get('bgr_to_rgb', False))
        self.batch_size = batch_size
        # Of the input's values to the encoder's, in the input's order.
        mean, std, clip_mean, clip_std = (
            torch.tensor(values, dtype=torch.float64)
            for values in (data_preprocessor['mean'], data_preprocessor['std'],
                           settings['mean'], settings['std']))
        if not self.is_rgb:
            clip_mean, clip_std = clip_mean.flip(0), clip_std.flip(0)
        scale = std / 255 / clip_std
        shift = (mean / 255 - clip_mean) / clip_std
        # In float32 whatever the model around it is cast to, as the tower.
        scale, shift = (of.float().view(3, 1, 1) for of in (scale, shift))
        self.colours = Constants(scale=scale, shift=shift)

    @torch.no_grad()
    def forward(self, images: Tensor, rois: Tensor) -> Tensor:
        """Embed crops.

        Args:
            images (Tensor): Network inputs (N, 3, H, W).
            rois (Tensor): Crops (R, 5): index of the image, then absolute
                xyxy pixels.

        Returns:
            Tensor: (R, D) float32 unit vectors.
        """
        with self.full_speed(), torch.autocast(
                images.device.type, enabled=False):
            inputs = images.float() * self.colours['scale'] \
                + self.colours['shift']
            if not self.is_rgb:
                inputs = inputs.flip(1)
            # One more, so that no crop at all is no special case.
            rois = F.pad(rois.float(), (0, 0, 0, 1))
            features = [
                self.tower(aligned_regions(inputs, chunk, self.size))
                for chunk in rois.split(self.batch_size)
            ]
            return F.normalize(torch.cat(features)[:-1].float(), dim=-1)
