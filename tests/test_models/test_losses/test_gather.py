# Licensed under the Apache License, Version 2.0.
"""Two real gloo processes against one process on the joined batch."""
import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from mmdet_clim.models.losses import CLIMRegionLoss, FeatureQueue
from mmdet_clim.models.losses.gather import (
    exchange_counts,
    gather_rows,
    reduce_over_ranks,
)

LOSSES = [
    dict(
        kind='bce',
        temperature=5.0,
        bias=-2.0,
        learn_temperature=True,
        negative_weight=0.125),
    dict(kind='infonce', temperature=5.0, learn_temperature=True),
    dict(
        kind='sigmoid',
        temperature=5.0,
        bias=-1.0,
        learn_temperature=True,
        loss_weight=3.0),
    dict(kind='softmax', temperature=5.0, learn_temperature=True),
]
REGION_COUNTS = [(3, 5), (0, 8), (8, 0), (0, 0)]
TEXT_COUNTS = [(4, 2), (6, 0), (0, 6), (1, 5)]


def make_cases():
    torch.manual_seed(0)
    cases = []
    for loss in LOSSES:
        for chunk_size in (None, 2):
            for region_counts, text_counts in zip(REGION_COUNTS, TEXT_COUNTS):
                number = len(cases)
                total = sum(region_counts)
                targets = torch.rand(total, 6) > 0.6
                wide_targets = number % 2 == 0
                if not wide_targets:
                    # Regions match the texts of their own rank only.
                    targets[:region_counts[0], text_counts[0]:] = False
                    targets[region_counts[0]:, :text_counts[0]] = False
                cases.append(
                    dict(
                        regions=torch.randn(total, 6),
                        texts=torch.randn(6, 6),
                        targets=targets,
                        weights=torch.randn(2, 4, 6),
                        region_counts=region_counts,
                        text_counts=text_counts,
                        wide_targets=wide_targets,
                        train_texts=number % 3 != 0,
                        avg_factors=(1.0, 2.5) if number % 4 == 1 else None,
                        loss=dict(loss, chunk_size=chunk_size)))
    return cases


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
    queue = FeatureQueue(4, 1)
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


def run_rank(rank, folder, cases):
    """Write down what this rank found."""
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    found = dict(
        losses=[run_loss(case, rank) for case in cases],
        queue=run_queue(rank),
        wrong_targets=run_wrong_targets(rank),
        one_text_gradient=run_one_text_gradient(rank))
    torch.save(found, f'{folder}/found_{rank}.pth')
    # The group ends with the process, see test_clim_detector_ddp.py.


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp('gather')
    mp.start_processes(
        run_rank, (str(folder), make_cases()), 2, start_method='fork')
    return [
        torch.load(folder / f'found_{rank}.pth', weights_only=True)
        for rank in range(2)
    ]


def test_losses_equal_those_of_the_joined_batch(found):
    for number, case in enumerate(make_cases()):
        loss = CLIMRegionLoss(**dict(case['loss'], chunk_size=None))
        weights = case['weights'].clone().requires_grad_()
        factors = case['avg_factors']
        value = loss(case['regions'] @ weights[0].T,
                     case['texts'] @ weights[1].T, case['targets'],
                     sum(factors) if factors else None)
        value.backward()
        expected = {'regions.weight': weights.grad[0]}
        for name, parameter in loss.named_parameters():
            expected[f'loss.{name}'] = parameter.grad
        if case['train_texts']:
            expected['texts.weight'] = weights.grad[1]
        for rank in range(2):
            result = found[rank]['losses'][number]
            torch.testing.assert_close(result['value'], value.detach())
            for name, grad in expected.items():
                torch.testing.assert_close(
                    result['grads'][name],
                    grad,
                    rtol=1e-5,
                    atol=1e-6,
                    msg=f'case {number} {name}')


def test_queue_is_the_same_on_all_ranks(found):
    expected = [[100, 101, 200], [100, 101, 200], [101, 200, 200, 201],
                [102, 200, 201, 202]]
    for rank in range(2):
        for (ids, features), numbers in zip(found[rank]['queue'], expected):
            assert ids == numbers
            assert features == numbers


def test_wrong_targets_stop_all_ranks_together(found):
    for rank in range(2):
        assert found[rank]['wrong_targets'] == (
            'targets of rank 1 must have 3 columns (its own texts) or 6 '
            '(those of all ranks), got 7')


def test_texts_with_gradient_on_one_rank_only(found):
    assert found[0]['one_text_gradient'][1].abs().sum() > 0
    assert found[1]['one_text_gradient'][1] is None
    for rank in range(2):
        assert found[rank]['one_text_gradient'][0].abs().sum() > 0


def test_a_single_process_gets_back_what_it_gave():
    rows = torch.ones(2, 3)
    assert exchange_counts(2, 5) == [[2], [5]]
    assert gather_rows(rows, [2]) is rows
    for operation in ('sum', 'max'):
        assert torch.equal(reduce_over_ranks(rows, operation), rows)
