# Licensed under the Apache License, Version 2.0.
"""Numbers beside a contrastive loss, without waiting for the device."""

import torch
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor


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
    if 0 in targets.shape:
        return regions.new_zeros((), dtype=torch.float32)
    with torch.autocast(regions.device.type, enabled=False):
        nearest = (regions.float() @ texts.float().t()).argmax(1, keepdim=True)
    hits = targets.gather(1, nearest).sum()
    return hits * 100. / targets.any(1).sum().clamp(min=1)


def mean_count(embeddings: Tensor) -> float | Tensor:
    """Regions per rank on average, at least 1.

    The divisor that makes the gradients of several ranks, once averaged,
    those of one process on the joined batch.
    """
    if get_world_size() == 1:
        return max(float(len(embeddings)), 1.0)
    count = embeddings.new_full((), len(embeddings), dtype=torch.float32)
    return reduce_mean(count).clamp(min=1)
