# Licensed under the Apache License, Version 2.0.
import pytest
import torch

from mmdet_clim.models.objectives import compose_tiles, union_boxes


def is_rectangle(mask):
    rows, cols = mask.any(1), mask.any(0)
    return torch.equal(mask, rows[:, None] & cols[None]) and all(
        side.nonzero().flatten().diff().eq(1).all() for side in (rows, cols))


@pytest.mark.parametrize(
    'grid, count',
    [
        ((1, 1), 0),  # a plain image has nothing to compose
        ((1, 2), 1),
        ((2, 2), 5),  # 9 rectangles, 4 of one tile
        ((2, 3), 12),  # 18 rectangles, 6 of one tile
        ((4, 4), 84),  # 100 rectangles, 16 of one tile
    ])
def test_all_rectangles_of_any_grid(grid, count):
    members = compose_tiles(grid, 1000)
    assert members.shape == (count, grid[0] * grid[1])
    assert len({tuple(m.tolist()) for m in members}) == count
    for mask in members:
        assert mask.sum() >= 2
        assert is_rectangle(mask.view(grid))


def test_draws_are_distinct_and_seeded():
    torch.manual_seed(3)
    first = compose_tiles((3, 4), 4)
    torch.manual_seed(3)
    assert torch.equal(first, compose_tiles((3, 4), 4))
    assert len({tuple(m.tolist()) for m in first}) == 4
    assert compose_tiles((3, 4), 0).shape == (0, 12)


def test_every_rectangle_is_as_likely():
    torch.manual_seed(0)
    counts = {}
    for _ in range(3000):
        key = tuple(compose_tiles((2, 2), 1)[0].tolist())
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 5
    # 600 expected, standard deviation 22.
    assert all(490 < n < 710 for n in counts.values())


@pytest.mark.parametrize('grid, num, message', [
    ((0, 2), 1, 'grid'),
    ((2, 2), -1, 'num'),
])
def test_bad_arguments(grid, num, message):
    with pytest.raises(ValueError, match=message):
        compose_tiles(grid, num)


def test_union_boxes_by_hand():
    boxes = torch.tensor([[0., 5., 10., 10.], [10., 0., 30., 10.],
                          [2., 10., 10., 20.]])
    members = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 1, 1]]).bool()
    assert union_boxes(boxes, members).tolist() == [[0, 5, 10, 10],
                                                    [0, 0, 30, 10],
                                                    [0, 0, 30, 20]]
    assert union_boxes(boxes, members[:0]).shape == (0, 4)
