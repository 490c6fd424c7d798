# Licensed under the Apache License, Version 2.0.
"""One of two processes of ``test_gather.py``.

Usage: ``python gather_worker.py RANK FOLDER``. Writes to ``FOLDER`` what this
rank found.
"""
import sys
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mmdet_clim.models.losses import CLIMRegionLoss, TextQueue


class Heads(nn.Module):
    """A layer for the regions, one for the texts, and the loss."""

    def __init__(self, weights, loss, train_texts):
        super().__init__()
        self.regions = nn.Linear(6, 4, bias=False)
        self.texts = nn.Linear(6, 4, bias=False).requires_grad_(train_texts)
        self.regions.weight.data.copy_(weights[0])
        self.texts.weight.data.copy_(weights[1])
        self.loss = loss

    def forward(self, regions, texts, targets, avg_factor):
        return self.loss(
            self.regions(regions), self.texts(texts), targets, avg_factor)


def part(values, counts, rank):
    start = sum(counts[:rank])
    return values[start:start + counts[rank]]


def run_loss(case, rank):
    regions = part(case['regions'], case['region_counts'], rank)
    texts = part(case['texts'], case['text_counts'], rank)
    targets = part(case['targets'], case['region_counts'], rank)
    if not case['wide_targets']:
        start = sum(case['text_counts'][:rank])
        targets = targets[:, start:start + len(texts)]
    avg_factor = case['avg_factors'] and case['avg_factors'][rank]
    model = DistributedDataParallel(
        Heads(case['weights'], CLIMRegionLoss(gather=True, **case['loss']),
              case['train_texts']))
    value = model(regions, texts, targets, avg_factor)
    value.backward()
    return dict(
        value=value.detach(),
        grads={
            n: p.grad
            for n, p in model.module.named_parameters()
        })


def run_queue(rank):
    queue = TextQueue(4, 1)
    steps = []
    for counts in ((2, 1), (0, 0), (0, 2), (3, 3)):
        numbers = 100 * (rank + 1) + torch.arange(counts[rank])
        queue.enqueue(numbers[:, None].float(), numbers)
        steps.append((queue.ids.tolist(), queue.features.flatten().tolist()))
    return steps


def run_wrong_targets(rank):
    loss = CLIMRegionLoss(gather=True)
    width = 3 if rank == 0 else 7
    try:
        loss(
            torch.ones(2, 4), torch.ones(3, 4),
            torch.zeros(2, width, dtype=torch.bool))
    except ValueError as error:
        return str(error)
    return 'no error'


def run_one_text_gradient(rank):
    """Only rank 0's texts ask for gradient: the backward pass still ends."""
    regions = torch.eye(3)[rank:rank + 1].requires_grad_()
    texts = torch.eye(3)[1:2 + rank].clone().requires_grad_(rank == 0)
    CLIMRegionLoss(gather=True)(regions, texts,
                                torch.ones(1, 1 + rank,
                                           dtype=torch.bool)).backward()
    return regions.grad, texts.grad


def main():
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    distributed.init_process_group(
        'gloo',
        init_method=(folder / 'store').as_uri(),
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=240))
    cases = torch.load(folder / 'cases.pth', weights_only=True)
    found = dict(
        losses=[run_loss(case, rank) for case in cases],
        queue=run_queue(rank),
        wrong_targets=run_wrong_targets(rank),
        one_text_gradient=run_one_text_gradient(rank))
    torch.save(found, folder / f'found_{rank}.pth')
    distributed.destroy_process_group()


if __name__ == '__main__':
    main()
