# Licensed under the Apache License, Version 2.0.
"""Two real gloo processes against one process on the joined batch."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmdet_clim.models.losses import CLIMRegionLoss
from mmdet_clim.models.losses.gather import (
    exchange_counts,
    gather_rows,
    max_over_ranks,
    sum_over_ranks,
)

WORKER = Path(__file__).with_name('gather_worker.py')
ROOT = Path(__file__).parents[3]
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


@pytest.fixture(scope='module')
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp('gather')
    torch.save(make_cases(), folder / 'cases.pth')
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    ranks = [
        subprocess.Popen(
            [sys.executable,
             str(WORKER), str(rank),
             str(folder)],
            env=env,
            stderr=subprocess.PIPE,
            text=True) for rank in range(2)
    ]
    try:
        for rank in ranks:
            _, stderr = rank.communicate(timeout=600)
            assert rank.returncode == 0, stderr[-3000:]
    finally:
        for rank in ranks:
            rank.kill()
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
    assert exchange_counts([2, 5], rows.device) == [[2, 5]]
    assert gather_rows(rows, [2]) is rows
    assert sum_over_ranks(rows) is rows
    assert max_over_ranks(rows) is rows
