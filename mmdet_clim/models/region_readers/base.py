# Licensed under the Apache License, Version 2.0.
from abc import ABCMeta, abstractmethod
from typing import List, Sequence, Tuple

from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn


class BaseRegionReader(BaseModule, metaclass=ABCMeta):
    """How one family of detectors turns boxes into embeddings.

    A reader holds no detector; it is handed the one to read, so that a
    detector's parameters stand once in the state dict.
    """

    @abstractmethod
    def check(self, detector: nn.Module) -> None:
        """Raise a TypeError that says what this detector lacks."""

    def extract_feat(self, detector: nn.Module,
                     inputs: Tensor) -> Tuple[Tensor, ...]:
        """Images (N, 3, H, W) to the detector's feature maps."""
        return detector.extract_feat(inputs)

    @abstractmethod
    def propose(self, detector: nn.Module, feats: Sequence[Tensor],
                data_samples: list) -> List[InstanceData]:
        """Proposals of each image, without gradient.

        Returns:
            list[InstanceData]: ``bboxes`` (n, 4), absolute xyxy pixels of the
            network input, and ``scores`` (n,) in descending order.
        """

    @abstractmethod
    def read(self, detector: nn.Module, feats: Sequence[Tensor],
             rois: Tensor) -> Tensor:
        """Boxes to region embeddings, with gradient.

        Args:
            detector (nn.Module): The detector to read.
            feats (Sequence[Tensor]): What :meth:`extract_feat` returned.
            rois (Tensor): Shape (R, 5): image index, then absolute xyxy
                pixels of the network input.

        Returns:
            Tensor: Region embeddings (R, D) of any norm.
        """
