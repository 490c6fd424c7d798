# Licensed under the Apache License, Version 2.0.
"""What a detector made of images: the input of every region reader."""
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Dict, Iterator, List, Sequence, Tuple

from mmdet.structures import DetDataSample, SampleList
from torch import Tensor, nn


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

    levels: Tuple[Tensor, ...]
    inputs: Tensor
    metas: Sequence[dict]
    seen: Dict[str, Any] = field(default_factory=dict, init=False)

    @property
    def size(self) -> Tuple[int, int]:
        """Height and width of the images with their padding."""
        return tuple(self.inputs.shape[-2:])

    def samples(self) -> SampleList:
        """A new data sample per image, without annotations."""
        return [
            DetDataSample(metainfo=dict(meta, batch_input_shape=self.size))
            for meta in self.metas
        ]


@contextmanager
def features_once(detector: nn.Module) -> Iterator[None]:
    """Within it a detector takes in a batch of images once.

    The detector's own loss and a region reader that is given the same tensor
    of images share its maps, whose gradient is the sum of both.

    Args:
        detector (nn.Module): An mmdet detector.
    """
    extract_feat = detector.extract_feat
    seen: List[Tuple[Tensor, Tuple[Tensor, ...]]] = []

    def once(inputs: Tensor) -> Tuple[Tensor, ...]:
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


def aligned_levels(maps: Sequence[Tensor]) -> List[Tensor]:
    """Feature maps as mmcv's RoIAlign reads them.

    On a CPU it takes no bfloat16, and reads a map whose memory is in another
    order (transposed, or channels last) as if it were not.

    Args:
        maps (Sequence[Tensor]): Shape (N, C, H, W) each.
    """
    return [level.float().contiguous() for level in maps]
