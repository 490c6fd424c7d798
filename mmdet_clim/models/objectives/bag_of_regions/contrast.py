# Licensed under the Apache License, Version 2.0.
"""Bags against texts, with queues on both sides."""

import torch
from torch import Tensor, nn

from mmdet_clim.registry import MODELS

from ...losses.clim_region_loss import build_region_loss
from ...losses.gather import exchange_counts, gather_rows
from ...losses.metrics import recall_at_1


class BagContrast(nn.Module):
    """Contrast of the bags and texts of a step and of two queues.

    A bag and a text belong together where the text's image is one of the
    bag's. Each bag is compared with all texts, each text with all bags, those
    of past steps too, and the loss is the mean over all of them
    (REFERENCE.md, section 3): with full queues a bag of the step has a small
    share in it. With ``gather`` every rank computes the loss of the joined
    batch, whose gradient the gathering sums over ranks and DDP averages.

    Args:
        loss (dict): Config of the loss, ``CLIMRegionLoss(kind='infonce')``.
        queue (dict, optional): Config of each of the two queues, normally
            ``FeatureQueue``; None for none. A bag of several images is not
            kept.
        gather (bool): Whether bags, texts and queues are those of all ranks.
    """

    def __init__(self,
                 loss: dict,
                 queue: dict | None = None,
                 gather: bool = False) -> None:
        super().__init__()
        self.gather = gather
        self.region_loss = build_region_loss(loss)
        self.bag_queue = None if queue is None else MODELS.build(queue)
        self.text_queue = None if queue is None else MODELS.build(queue)

    def forward(self,
                bags: Tensor,
                bag_ids: Tensor,
                texts: Tensor,
                text_ids: Tensor,
                remember: bool = True) -> dict[str, Tensor]:
        """Compare.

        Args:
            bags (Tensor): Shape (S, D), this rank's.
            bag_ids (Tensor): int64 (S, M), M > 0: the images of each bag, the
                first one again where it has fewer.
            texts (Tensor): Shape (T, D), this rank's, without gradient.
            text_ids (Tensor): int64 (T,), the image of each.
            remember (bool): Whether the queues take up the step.

        Returns:
            dict: ``loss`` and ``recall@1``.

        Raises:
            ValueError: If a text that a queue is to remember is not finite.
        """
        rows, row_ids = bags.float(), bag_ids
        columns, column_ids = texts, text_ids
        if self.gather:
            num_bags, widths, num_texts = exchange_counts(
                *bag_ids.shape, len(texts))
            rows = gather_rows(rows, num_bags)
            row_ids = gather_rows(repeat_first(row_ids, max(widths)), num_bags)
            columns = gather_rows(columns, num_texts)
            column_ids = gather_rows(column_ids, num_texts)
        own = slice(len(rows))
        if self.bag_queue is not None:
            past, past_ids = self.bag_queue.features, self.bag_queue.ids
            rows = torch.cat([rows, past])
            row_ids = torch.cat(
                [row_ids, past_ids[:, None].expand(-1, row_ids.shape[1])])
            past, past_ids = self.text_queue.features, self.text_queue.ids
            columns = torch.cat([columns, past])
            column_ids = torch.cat([column_ids, past_ids])
        targets = (row_ids[..., None] == column_ids).any(1)
        if self.bag_queue is not None and remember:
            self.text_queue.enqueue(texts, text_ids, self.gather)
            # A step that overflows in half precision is left out.
            kept = (bag_ids == bag_ids[:, :1]).all(1) & bags.isfinite().all(1)
            kept = kept.nonzero().flatten()
            self.bag_queue.enqueue(bags[kept], bag_ids[kept, 0], self.gather)
        loss = self.region_loss(rows, columns, targets, mean_over_all=True)
        recall = recall_at_1(rows[own], columns, targets[own])
        return {'loss': loss, 'recall@1': recall}


def repeat_first(ids: Tensor, width: int) -> Tensor:
    """Ids (N, M) as (N, width), the first of each row again in the rest."""
    return torch.cat([ids, ids[:, :1].expand(-1, width - ids.shape[1])], 1)
