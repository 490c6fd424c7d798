# Licensed under the Apache License, Version 2.0.
import pytest
import torch
from mmengine.runner.checkpoint import get_state_dict, load_state_dict
from torch import nn

from mmdet_clim.models.losses import FeatureQueue


def filled_queue(size, count):
    queue = FeatureQueue(size, 2)
    for i in range(count):
        queue.enqueue(torch.full((1, 2), float(i)), torch.tensor([10 + i]))
    return queue


def assert_holds(queue, numbers):
    assert queue.ids.tolist() == [10 + n for n in numbers]
    assert queue.features.tolist() == [[n, n] for n in numbers]
    assert len(queue) == len(numbers)


def test_first_in_first_out():
    queue = filled_queue(3, 0)
    assert queue.features.shape == (0, 2) and queue.ids.shape == (0, )
    assert queue.ids.dtype == torch.int64
    assert_holds(filled_queue(3, 2), [0, 1])
    assert_holds(filled_queue(3, 3), [0, 1, 2])
    assert_holds(filled_queue(3, 5), [2, 3, 4])


def test_more_than_it_holds_keeps_the_newest():
    queue = filled_queue(3, 2)
    numbers = torch.arange(20, 27)
    queue.enqueue((numbers - 10).float()[:, None].expand(-1, 2), numbers)
    assert_holds(queue, [14, 15, 16])


def test_nothing_to_enqueue():
    queue = filled_queue(3, 2)
    queue.enqueue(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
    assert_holds(queue, [0, 1])


def test_features_are_float32_without_gradient_and_copies():
    queue = FeatureQueue(2, 2)
    features = torch.ones(1, 2, dtype=torch.bfloat16, requires_grad=True)
    queue.enqueue(features * 2, torch.tensor([1]))
    assert queue.features.dtype == torch.float32
    assert not queue.features.requires_grad
    kept = queue.features
    queue.enqueue(torch.zeros(2, 2), torch.tensor([2, 3]))
    assert kept.tolist() == [[2, 2]]


@pytest.mark.parametrize('size, numbers', [(4, [0, 1, 2]), (3, [0, 1, 2]),
                                           (2, [1, 2]), (9, [0, 1, 2])])
def test_state_goes_on_in_a_queue_of_any_size(size, numbers):
    source = nn.Sequential(filled_queue(4, 3))
    target = nn.Sequential(FeatureQueue(size, 2))
    assert len(target[0]) == 0  # known before the state loads
    load_state_dict(target, get_state_dict(source), strict=True)
    assert_holds(target[0], numbers)
    target[0].enqueue(torch.full((1, 2), 7.0), torch.tensor([17]))
    assert_holds(target[0], [*numbers, 7][-size:])


def test_state_of_another_width_is_refused():
    state = filled_queue(4, 3).state_dict()
    with pytest.raises(RuntimeError, match='dim=3, the state has 2'):
        FeatureQueue(4, 3).load_state_dict(state)


def test_state_without_queue_is_named():
    with pytest.raises(RuntimeError, match='stored_ids'):
        FeatureQueue(4, 3).load_state_dict({})


@pytest.mark.parametrize('features, ids, error, message', [
    (torch.ones(1, 3), torch.tensor([1]), ValueError, r'\(N, 2\)'),
    (torch.ones(2), torch.tensor([1]), ValueError, r'\(N, 2\)'),
    (torch.ones(1, 2), torch.tensor([1, 2]), ValueError, 'one per feature'),
    (torch.ones(1, 2), torch.tensor([1.0]), TypeError, 'int64'),
    (torch.ones(1, 2), ['a.jpg'], TypeError, 'number string ids'),
    (torch.tensor([[1.0, float('nan')]]), torch.tensor(
        [3]), ValueError, r'image ids \[3\]'),
])
def test_wrong_input(features, ids, error, message):
    queue = filled_queue(3, 1)
    with pytest.raises(error, match=message):
        queue.enqueue(features, ids)
    assert_holds(queue, [0])


@pytest.mark.parametrize('size, dim', [(0, 2), (2, 0)])
def test_wrong_size(size, dim):
    with pytest.raises(ValueError, match='expected at least 1, got 0'):
        FeatureQueue(size, dim)
