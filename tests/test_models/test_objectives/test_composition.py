# Licensed under the Apache License, Version 2.0.
from collections import Counter
from itertools import product

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


def drawn_with_replacement(rows, cols):
    """Chance of each set of tiles: both ends of both axes, by enumeration."""
    chances = Counter()
    for top, bottom in product(range(rows), repeat=2):
        for left, right in product(range(cols), repeat=2):
            top_, bottom_ = sorted((top, bottom))
            left_, right_ = sorted((left, right))
            tiles = tuple(top_ <= r <= bottom_ and left_ <= c <= right_
                          for r, c in product(range(rows), range(cols)))
            chances[tiles] += sum(tiles) > 1
    total = sum(chances.values())
    return {key: count / total for key, count in chances.items() if count}


@pytest.mark.parametrize('grid, mean', [((2, 2), 2.67), ((3, 3), 3.89),
                                        ((4, 4), 5.33)])
def test_the_published_law(grid, mean):
    """REFERENCE.md, section 2: ends with replacement, no single tiles."""
    chances = drawn_with_replacement(*grid)
    expected = sum(sum(key) * chance for key, chance in chances.items())
    assert expected == pytest.approx(mean, abs=.005)
    torch.manual_seed(0)
    number = 3000
    counts = Counter(
        tuple(compose_tiles(grid, 1)[0].tolist()) for _ in range(number))
    assert set(counts) <= set(chances)
    for key, chance in chances.items():
        deviation = (number * chance * (1 - chance))**.5
        assert abs(counts[key] - number * chance) < 5 * deviation
    found = sum(sum(key) * count for key, count in counts.items()) / number
    assert found == pytest.approx(expected, abs=.25)


def test_the_second_draw_is_one_of_the_others():
    """Without the first; the rest keep their proportions."""
    chances = drawn_with_replacement(2, 2)
    pairs = Counter()
    torch.manual_seed(0)
    for _ in range(3000):
        pairs[tuple(tuple(m.tolist()) for m in compose_tiles((2, 2), 2))] += 1
    assert len(pairs) == 10
    for (one, two), count in pairs.items():
        chance = chances[one] * chances[two] * (1 / (1 - chances[one]) + 1 /
                                                (1 - chances[two]))
        deviation = (3000 * chance * (1 - chance))**.5
        assert one != two and abs(count - 3000 * chance) < 5 * deviation


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
