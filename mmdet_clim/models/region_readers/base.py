# Licensed under the Apache License, Version 2.0.
from abc import ABCMeta, abstractmethod
from dataclasses import dataclass
from typing import Callable, List, Optional

from mmdet.structures import SampleList
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_clim.models.families import family_of

from .features import ExtractedImages


@dataclass
class ReadingStage:
    """One of the stages in which a detector reads regions.

    Args:
        read (Callable): RoIs (R, 5) to embeddings (R, D) of any norm, with
            gradient. An RoI is the index of its image, then absolute xyxy
            pixels of the network input.
        weight (float): Weight of the stage's losses.
        refine (Callable, optional): RoIs (R, 5) to the boxes (R, 4) that the
            next stage gets for them, without gradient. The last stage has
            none.
        interpret (Callable, optional): Embeddings (R, D) to vectors in the
            space of texts, where they are others, such as words.
    """

    read: Callable[[Tensor], Tensor]
    weight: float = 1.0
    refine: Optional[Callable[[Tensor], Tensor]] = None
    interpret: Optional[Callable[[Tensor], Tensor]] = None

    def read_as_text(self, rois: Tensor) -> Tensor:
        """RoIs (R, 5) to what texts are compared with, of any norm."""
        embeddings = self.read(rois)
        if self.interpret is None:
            return embeddings
        return self.interpret(embeddings)


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

    def extract_feat(
            self,
            detector: nn.Module,
            inputs: Tensor,
            data_samples: Optional[SampleList] = None) -> ExtractedImages:
        """Have backbone and neck take in images, for the other methods.

        Args:
            detector (nn.Module): The detector to read.
            inputs (Tensor): Images (N, 3, H, W).
            data_samples (list[DetDataSample], optional): Of each image.
                Without them, no image is padded.
        """
        levels = family_of(detector).feature_maps(detector, inputs)
        if isinstance(levels, Tensor):
            levels = (levels, )
        size = tuple(inputs.shape[-2:])
        metas = [dict(img_shape=size) for _ in inputs] \
            if data_samples is None else [s.metainfo for s in data_samples]
        return ExtractedImages(tuple(levels), inputs, metas)

    @abstractmethod
    def propose(self, detector: nn.Module,
                feats: ExtractedImages) -> List[InstanceData]:
        """Proposals of each image, without gradient.

        Returns:
            list[InstanceData]: ``bboxes`` (n, 4), absolute xyxy pixels of the
            network input, and ``scores`` (n,) in descending order.
        """

    @abstractmethod
    def stages(self, detector: nn.Module,
               feats: ExtractedImages) -> List[ReadingStage]:
        """The stages in which the detector reads regions, mostly one.

        Args:
            detector (nn.Module): The detector to read.
            feats (ExtractedImages): What :meth:`extract_feat` returned.
        """
