# Licensed under the Apache License, Version 2.0.
"""What the objectives of a training on CLIP share."""
from abc import ABCMeta, abstractmethod
from typing import NamedTuple

import torch
from mmdet.structures import SampleList
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmdet_clim.models.backbones import ImageTower
from mmdet_clim.models.maps import aligned_regions


class Towers(NamedTuple):
    """The parts of CLIP that an objective works with.

    ``image`` is trained; ``original`` is the image tower as ``pretrained``
    gave it, frozen; ``text`` embeds N strings as unit vectors (N, D) and has
    the whole of CLIP's other half as ``tower``. ``temperature`` is the factor
    on the cosine of a CLIP whose text tower holds none.
    """

    image: ImageTower
    original: ImageTower
    text: nn.Module
    temperature: float | None = None


class BaseCLIPObjective(BaseModule, metaclass=ABCMeta):
    """One loss of a training on CLIP."""

    @property
    def log_temperature(self) -> Tensor | None:
        """What the objective has learned of CLIP's logit scale, if it has."""
        return None

    def prepare(self, towers: Towers) -> None:
        """Build what depends on the towers; called once, by the model."""

    @abstractmethod
    def loss(self, images: Tensor, samples: SampleList,
             towers: Towers) -> dict[str, Tensor]:
        """The loss and metrics of one batch.

        Args:
            images (Tensor): (N, 3, H, W), normalised; each fills the upper
                left corner that the ``img_shape`` of its sample tells.
            samples (list[DetDataSample]): N samples with ``captions`` (one
                list[str]) and ``image_keys``.
            towers (Towers): The towers.

        Returns:
            dict[str, Tensor]: ``loss``, and metrics without "loss" in their
            name.
        """


def original_temperature(towers: Towers) -> float:
    """The factor on the cosine that CLIP was trained with.

    Raises:
        ValueError: If neither the text tower nor the config tells it.
    """
    if towers.temperature is not None:
        return towers.temperature
    scale = dict(towers.text.tower.named_parameters()).get('logit_scale')
    if scale is None:
        raise ValueError(
            f'temperature: {type(towers.text).__name__} does not have one; '
            'expected the factor of the cosine as temperature of CLIMOnCLIP, '
            'got None')
    return scale.detach().exp().item()


def crop_images(images: Tensor, rois: Tensor, size: int) -> Tensor:
    """Cut regions out of images and squash each to a square.

    Args:
        images (Tensor): (N, 3, H, W).
        rois (Tensor): (R, 5): the image's number, absolute xyxy pixels.
        size (int): Side of the square in pixels.

    Returns:
        Tensor: (R, 3, size, size) float32.
    """
    with torch.autocast(images.device.type, enabled=False):
        return aligned_regions(images.float(), rois, size)
