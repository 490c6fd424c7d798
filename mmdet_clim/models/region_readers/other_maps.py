# Licensed under the Apache License, Version 2.0.
"""Maps of a detector behind its neck."""
from contextlib import ExitStack, contextmanager
from typing import Sequence

import torch
from mmdet.models.detectors.base_detr import DetectionTransformer
from torch import Tensor, nn

from ..dense_heads import ZeroShotDenseMixin
from ..modes import batch_norms
from .base import ExtractedImages

# Positions along a side of the maps on which a head is tried.
PROBE_SIDE = 4


def class_embedding_maps(
    head: ZeroShotDenseMixin,
    levels: Sequence[Tensor],
    idle: Sequence[str] = ()) -> list[Tensor]:
    """Per level, the embeddings (N, D, H, W) that a head classifies.

    Of several priors of one position, their mean. No class is scored.

    Args:
        head (ZeroShotDenseMixin): The head.
        levels (Sequence[Tensor]): The neck's maps (N, C, H, W).
        idle (Sequence[str]): Names of convolutions that the embeddings do
            not depend on, as :func:`idle_convolutions` finds them. Such as
            those that regress boxes, they see one position. Where a batch
            norm follows the statistics of the batch, they see all.
    """
    if any(norm.training for norm in batch_norms(head)):
        idle = ()
    seen: list[Tensor] = []
    with ExitStack() as stack:
        for name in idle:
            conv = head.get_submodule(name)
            stack.enter_context(conv.register_forward_pre_hook(_corner))
        for layer in head.class_layers:
            layer.seen = seen
        try:
            head(tuple(levels))
        finally:
            for layer in head.class_layers:
                layer.seen = None
    return seen


def idle_convolutions(head: ZeroShotDenseMixin,
                      levels: Sequence[Tensor]) -> list[str]:
    """The convolutions of a head that its class embeddings do not depend on.

    Those to which no gradient comes. Then they get other weights and one
    position of their maps: what a head uses without gradient changes the
    embeddings, and nothing is idle.

    Args:
        head (ZeroShotDenseMixin): In evaluation mode; is left as it was.
        levels (Sequence[Tensor]): Some maps (N, C, H, W) that it takes.

    Returns:
        list[str]: Their names in the head.
    """
    corners = [
        m[..., :PROBE_SIDE, :PROBE_SIDE].detach().contiguous() for m in levels
    ]
    convs = {
        name: module
        for name, module in head.named_modules()
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad
    }
    with torch.enable_grad():
        expected = class_embedding_maps(head, corners)
        if not all(level.requires_grad for level in expected):
            return []
        grads = torch.autograd.grad(
            sum(level.sum() for level in expected),
            [conv.weight for conv in convs.values()],
            allow_unused=True)
    idle = [name for name, grad in zip(convs, grads) if grad is None]
    weights = [convs[name].weight for name in idle]
    kept = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight in weights:
                # Of both signs, so that no activation hides all of it.
                wave = torch.arange(weight.numel(), device=weight.device).cos()
                weight.add_(wave.view_as(weight))
            found = class_embedding_maps(head, corners, idle)
        is_same = all(map(torch.equal, found, expected))
    except RuntimeError:  # maps of one position and of all, put together
        is_same = False
    finally:
        with torch.no_grad():
            for weight, before in zip(weights, kept):
                weight.copy_(before)
    return idle if is_same else []


def _corner(conv: nn.Module, args: tuple) -> tuple:
    """Of a convolution's map, its first position alone."""
    return (args[0][..., :1, :1], *args[1:])


def encoder_maps(detector: DetectionTransformer, feats: ExtractedImages,
                 **kwargs) -> list[Tensor]:
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
    parts = memory.split([h * w for h, w in shapes], dim=1)
    return [
        tokens.transpose(1, 2).unflatten(2, tuple(shape))
        for tokens, shape in zip(parts, shapes)
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
