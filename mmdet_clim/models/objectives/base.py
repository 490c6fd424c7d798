# Licensed under the Apache License, Version 2.0.
from abc import ABCMeta, abstractmethod
from dataclasses import dataclass
from typing import Dict, List

import torch
from mmdet.structures import DetDataSample
from mmdet.utils import reduce_mean
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor

from mmdet_clim.models.text_encoders import BaseTextEncoder


@dataclass
class SampledRegions:
    """The pseudo regions that an objective took from one image.

    Args:
        bboxes (Tensor): Shape (n, 4), absolute xyxy pixels of the network
            input.
        members (Tensor): bool (n, K): which of the image's K tiles stand in
            each region.
        data_sample (DetDataSample): The image, with ``captions``, ``tags``,
            ``image_keys`` and ``mosaic_grid``.
    """

    bboxes: Tensor
    members: Tensor
    data_sample: DetDataSample

    def __len__(self) -> int:
        return len(self.bboxes)

    @property
    def composed(self) -> Tensor:
        """Boxes of the regions of several tiles: (m, 4) of ``bboxes``."""
        return self.bboxes[self.members.sum(1) > 1]

    def tag_targets(self, num_classes: int) -> Tensor:
        """Which region holds a tile with which tag: bool (n, C), on the CPU.

        Args:
            num_classes (int): C, the number of classes that tags index.
        """
        tags = self.data_sample.tags
        of_tile = torch.zeros(len(tags), num_classes)
        for row, of_image in zip(of_tile, tags):
            row[of_image] = 1
        return self.members.cpu().float() @ of_tile > 0


class BaseRegionObjective(BaseModule, metaclass=ABCMeta):
    """Which regions of a mosaic meet which texts.

    ``CLIMDetector`` calls :meth:`sample` for each image, has the region
    reader embed all sampled boxes, and hands both to :meth:`loss`; all of it
    once per stage where a detector reads regions in several stages.
    """

    #: Whether :meth:`loss` looks at the images, as ``network_input`` (3, H, W)
    #: of the data samples.
    needs_images = False

    @property
    def needs_proposals(self) -> bool:
        """Whether :meth:`sample` looks at the proposals.

        Where no objective of a branch does, none are computed.
        """
        return False

    @abstractmethod
    def sample(self, proposals: InstanceData,
               data_sample: DetDataSample) -> SampledRegions:
        """Choose regions of one image.

        Args:
            proposals (InstanceData): ``bboxes`` (n, 4) and ``scores`` (n,);
                empty where :attr:`needs_proposals` is False.
            data_sample (DetDataSample): A packed mosaic.
        """

    @abstractmethod
    def loss(self,
             embeddings: Tensor,
             samples: List[SampledRegions],
             text_encoder: BaseTextEncoder,
             last_stage: bool = True) -> Dict[str, Tensor]:
        """Compare regions with texts.

        Args:
            embeddings (Tensor): Embeddings (R, D) of the regions of all
                images, in the order of ``samples``.
            samples (list[SampledRegions]): One per image.
            text_encoder (BaseTextEncoder): Strings to unit vectors (T, D).
            last_stage (bool): False where another stage of the same step
                follows. What an objective remembers of a step, such as a
                queue of texts, changes in the last stage alone.

        Returns:
            dict: ``loss``, and metrics whose names do not contain "loss".
        """


@torch.no_grad()
def recall_at_1(regions: Tensor, texts: Tensor, targets: Tensor) -> Tensor:
    """Share of regions whose nearest text is their own, in percent.

    Args:
        regions (Tensor): Shape (R, D), of any norm.
        texts (Tensor): Shape (T, D), unit vectors.
        targets (Tensor): bool (R, T). Regions without a text do not count.

    Returns:
        Tensor: A scalar; 0 where no region has a text.
    """
    has_text = targets.any(1)
    if not has_text.any():
        return regions.new_zeros(())
    nearest = (regions.float() @ texts.t())[has_text].argmax(1, keepdim=True)
    return targets[has_text].gather(1, nearest).float().mean() * 100


def mean_count(embeddings: Tensor) -> float:
    """Regions per rank on average, at least 1.

    The divisor that makes the gradients of several ranks, once averaged,
    those of one process on the joined batch.
    """
    count = torch.tensor(float(len(embeddings)), device=embeddings.device)
    return max(reduce_mean(count).item(), 1.0)
