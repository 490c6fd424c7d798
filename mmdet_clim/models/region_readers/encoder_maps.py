# Licensed under the Apache License, Version 2.0.
"""What the encoder of a detection transformer gives, as maps."""
from contextlib import contextmanager
from typing import List

from mmdet.models.detectors.base_detr import DetectionTransformer
from torch import Tensor

from .features import ExtractedImages


def encoder_maps(detector: DetectionTransformer, feats: ExtractedImages,
                 **kwargs) -> List[Tensor]:
    """What a DETR's encoder gives, laid out as maps (N, C, H, W).

    Args:
        detector (DetectionTransformer): The detector.
        feats (ExtractedImages): Its neck's maps; what is padding is masked.
            Remembers the encoder's output.
        **kwargs: For the encoder, such as the ``text_dict`` of Grounding DINO.
    """
    encoder_inputs, _ = detector.pre_transformer(feats.levels, feats.samples())
    outputs = detector.forward_encoder(**encoder_inputs, **kwargs)
    feats.seen['encoder'] = outputs
    memory = outputs['memory']
    shapes = [level.shape[-2:] for level in feats.levels]
    if sum(h * w for h, w in shapes) != memory.shape[1]:
        shapes = shapes[-1:]  # DETR encodes the last map alone
    return [
        tokens.transpose(1, 2).unflatten(2, tuple(shape))
        for tokens, shape in zip(
            memory.split([h * w for h, w in shapes], dim=1), shapes)
    ]


@contextmanager
def encoded_before(detector: DetectionTransformer, feats: ExtractedImages):
    """Have a transformer go on from what its encoder gave before.

    Args:
        detector (DetectionTransformer): The detector.
        feats (ExtractedImages): Of which :func:`encoder_maps` may have made
            maps. If not, the encoder runs.
    """
    if 'encoder' not in feats.seen:
        yield
        return
    outputs = feats.seen['encoder']
    detector.forward_encoder = lambda *args, **kwargs: outputs
    try:
        yield
    finally:
        # The method of the class again.
        del detector.forward_encoder
