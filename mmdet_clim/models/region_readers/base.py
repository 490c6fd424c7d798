# Licensed under the Apache License, Version 2.0.
"""What every region reader is, and how it is built."""
from abc import ABCMeta, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Sequence

from mmdet.structures import DetDataSample, SampleList
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmengine.structures import InstanceData
from torch import Tensor, nn

from mmdet_clim.registry import MODELS

from ..families import family_of


@dataclass
class ExtractedImages:
    """Images, and a detector's maps of them.

    Args:
        levels (tuple[Tensor]): Maps (N, C, H, W), as the neck gives them.
        inputs (Tensor): Images (N, 3, H, W), with their padding.
        metas (Sequence[dict]): Metainfo of each; ``img_shape`` is the height
            and width without the padding.

    Attributes:
        seen (dict): What a reader has made of them and needs again, such as
            the output of a transformer's encoder.
    """

    levels: tuple[Tensor, ...]
    inputs: Tensor
    metas: Sequence[dict]
    seen: dict[str, Any] = field(default_factory=dict, init=False)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images with their padding."""
        return tuple(self.inputs.shape[-2:])

    def samples(self) -> SampleList:
        """A new data sample per image, without annotations."""
        metas = [dict(of, batch_input_shape=self.size) for of in self.metas]
        return [DetDataSample(metainfo=meta) for meta in metas]


@contextmanager
def features_once(detector: nn.Module) -> Iterator[None]:
    """Within it a detector takes in a batch of images once.

    The detector's own loss and a region reader that is given the same tensor
    of images share its maps, whose gradient is the sum of both.

    Args:
        detector (nn.Module): An mmdet detector.
    """
    extract_feat = detector.extract_feat
    seen: list[tuple[Tensor, tuple[Tensor, ...]]] = []

    def once(inputs: Tensor) -> tuple[Tensor, ...]:
        for known, maps in seen:
            if known is inputs:
                return maps
        seen.append((inputs, extract_feat(inputs)))
        return seen[-1][1]

    # An attribute of the instance hides the method of its class.
    detector.extract_feat = once
    try:
        yield
    finally:
        del detector.extract_feat


def as_weights(values: Tensor, module: nn.Module) -> Tensor:
    """What was computed in float32 in the dtype of a module's weights.

    Args:
        values (Tensor): Of any floating dtype.
        module (nn.Module): That takes them, such as one of a model that was
            cast by ``half()``. Under autocast its weights are in float32.
    """
    return values.to(next(module.parameters()).dtype)


def aligned_levels(maps: Sequence[Tensor]) -> list[Tensor]:
    """Feature maps as mmcv's RoIAlign reads them.

    On a CPU it takes no bfloat16, and reads a map whose memory is in another
    order (transposed, or channels last) as if it were not.

    Args:
        maps (Sequence[Tensor]): Shape (N, C, H, W) each.
    """
    return [level.float().contiguous() for level in maps]


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
    refine: Callable[[Tensor], Tensor] | None = None
    interpret: Callable[[Tensor], Tensor] | None = None

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
            data_samples: SampleList | None = None) -> ExtractedImages:
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
                feats: ExtractedImages) -> list[InstanceData]:
        """Proposals of each image, without gradient.

        Returns:
            list[InstanceData]: ``bboxes`` (n, 4), absolute xyxy pixels of the
            network input, and ``scores`` (n,) in descending order.
        """

    @abstractmethod
    def stages(self, detector: nn.Module,
               feats: ExtractedImages) -> list[ReadingStage]:
        """The stages in which the detector reads regions, mostly one.

        Args:
            detector (nn.Module): The detector to read.
            feats (ExtractedImages): What :meth:`extract_feat` returned.
        """


def build_region_reader(cfg: dict | None, detector: nn.Module,
                        dim: int) -> BaseRegionReader:
    """Build the configured reader, or the first of the detector's family.

    Args:
        cfg (dict, optional): Config of the reader.
        detector (nn.Module): The detector to read.
        dim (int): Width of a text embedding.

    Raises:
        TypeError: If the configured reader cannot read this detector, or none
            of its family can; the message gives each one's reason.
    """
    if cfg is not None:
        reader = MODELS.build(cfg)
        reader.check(detector)
        reader.prepare(detector, dim)
        return reader
    reasons = []
    for reader_type in family_of(detector).readers:
        reader = reader_type()
        try:
            reader.check(detector)
            reader.prepare(detector, dim)
        except TypeError as error:
            reasons.append(str(error))
        else:
            why = f', because {"; ".join(reasons)}' if reasons else ''
            print_log(f'region_reader: {reader_type.__name__}{why}', 'current')
            return reader
    raise TypeError(f'region_reader: none fits {type(detector).__name__}. ' +
                    '; '.join(reasons) +
                    '. Write a reader for it and name it in '
                    '`region_reader`.')
