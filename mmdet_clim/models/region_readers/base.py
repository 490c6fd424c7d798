# Licensed under the Apache License, Version 2.0.
from abc import ABCMeta, abstractmethod
from dataclasses import dataclass
from typing import Callable, Iterator, List, Sequence, Tuple

from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from .feature_maps import feature_maps


@dataclass
class ReadingStage:
    """One of the stages in which a detector reads regions.

    Args:
        index (int): Which stage, from 0.
        count (int): How many stages there are.
        weight (float): Weight of the stage's losses.
        proposals (list[InstanceData]): The stage's proposals of each image,
            as :meth:`BaseRegionReader.propose` gives them.
        read (Callable): RoIs (R, 5) to embeddings (R, D), with gradient.
    """

    index: int
    count: int
    weight: float
    proposals: List[InstanceData]
    read: Callable[[Tensor], Tensor]

    @property
    def is_last(self) -> bool:
        """Whether no stage of the same step follows."""
        return self.index == self.count - 1


class BaseRegionReader(BaseModule, metaclass=ABCMeta):
    """How one family of detectors turns boxes into embeddings.

    A reader holds no detector; it is handed the one to read, so that a
    detector's parameters stand once in the state dict.
    """

    @abstractmethod
    def check(self, detector: nn.Module) -> None:
        """Raise a TypeError that says what this detector lacks."""

    def prepare(self, detector: nn.Module, dim: int) -> None:
        """Make what depends on the detector; nothing by default.

        Args:
            detector (nn.Module): The detector that will be read.
            dim (int): Width of a text embedding.
        """

    def extract_feat(self, detector: nn.Module,
                     inputs: Tensor) -> Tuple[Tensor, ...]:
        """Images (N, 3, H, W) to the detector's feature maps (N, C, h, w)."""
        return feature_maps(detector, inputs)

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
            Tensor: Region embeddings (R, D) of any norm. Of several stages,
            the last one's.
        """

    def stages(self, detector: nn.Module, feats: Sequence[Tensor],
               proposals: List[InstanceData],
               data_samples: list) -> Iterator[ReadingStage]:
        """The stages in which the detector reads regions: here, one.

        Args:
            detector (nn.Module): The detector to read.
            feats (Sequence[Tensor]): What :meth:`extract_feat` returned.
            proposals (list[InstanceData]): What :meth:`propose` returned, or
                no boxes where nobody looks at them.
            data_samples (list[DetDataSample]): Of each image.

        Yields:
            ReadingStage: Each is taken up before the next is made.
        """
        yield ReadingStage(0, 1, 1.0, proposals,
                           lambda rois: self.read(detector, feats, rois))


def aligned_levels(maps: Sequence[Tensor]) -> List[Tensor]:
    """Feature maps as mmcv's RoIAlign reads them.

    On a CPU it takes no bfloat16, and reads a map whose memory is in another
    order (transposed, or channels last) as if it were not.

    Args:
        maps (Sequence[Tensor]): Shape (N, C, H, W) each.
    """
    return [level.float().contiguous() for level in maps]
