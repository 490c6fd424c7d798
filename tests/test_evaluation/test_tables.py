# Licensed under the Apache License, Version 2.0.
import math

import numpy as np
import pytest
from scipy import stats

from mmdet_clim.evaluation import (
    add_differences,
    differences_table,
    markdown_table,
    summarise_runs,
)


def test_table_by_hand():
    rows = summarise_runs({
        'boxes only': [dict(base_ap50=.9, novel_ap50=math.nan)],
        'a | b': [
            dict(base_ap50=.8, novel_ap50=.1, seconds_per_iteration=.5),
            dict(base_ap50=.9, novel_ap50=.3, seconds_per_iteration=.7),
        ],
    })
    assert [row['seeds'] for row in rows] == [1, 2]
    assert rows[0]['base_ap50'] == dict(mean=90, sd=None, values=[90])
    assert rows[0]['novel_ap50'] == dict(mean=None, sd=None, values=[None])
    # sd of 10 and 30 with n - 1: sqrt(2 * 10^2)
    assert rows[1]['novel_ap50']['mean'] == pytest.approx(20)
    assert rows[1]['novel_ap50']['sd'] == pytest.approx(math.sqrt(200))
    assert 'all_ap50' not in rows[1]
    assert markdown_table(rows) == (
        '|            |  base AP50 |  novel AP50 | all AP50 |      s/iter |\n'
        '|------------|-----------:|------------:|---------:|------------:|\n'
        '| boxes only |       90.0 |           – |        – |           – |\n'
        '| a \\| b     | 85.0 ± 7.1 | 20.0 ± 14.1 |        – '
        '| 0.60 ± 0.14 |\n')


def test_other_columns():
    columns = (('apr', 'mask APr', 100, 2), )
    rows = summarise_runs({'x': [dict(apr=.125, base_ap50=1)]}, columns)
    assert set(rows[0]) == {'name', 'seeds', 'apr'}
    assert '12.50' in markdown_table(rows, columns)


def test_nothing_to_compare():
    with pytest.raises(ValueError, match='runs'):
        summarise_runs({})
    with pytest.raises(ValueError, match="'a'.*at least one"):
        summarise_runs({'a': []})


def rows_of(**values):
    return summarise_runs({
        name: [dict(novel_ap50=v, seconds_per_iteration=1.) for v in seeds]
        for name, seeds in values.items()
    })


def test_differences_by_hand():
    # 10, 12 and 14 points: mean 12, sd 2, and t of 2 degrees is 4.303
    rows = rows_of(a=[.1, .2, .3], b=[.2, .32, .44])
    add_differences(rows)
    assert rows[0]['differences'] == {}
    found = rows[1]['differences']['a']['novel_ap50']
    reach = 4.302653 * 2 / math.sqrt(3)
    assert found == dict(
        mean=pytest.approx(12),
        low=pytest.approx(12 - reach),
        high=pytest.approx(12 + reach),
        pairs=3)
    head, _, line = differences_table(rows).splitlines()
    assert [cell.strip() for cell in head.split('|')[1:-1]
            ] == ['difference', 'base AP50', 'novel AP50', 'all AP50']
    assert [cell.strip() for cell in line.split('|')[1:-1]
            ] == ['b minus a', '–', '+12.0 [+7.0, +17.0]', '–']


def test_differences_as_scipy_has_them():
    a, b = np.random.default_rng(0).random((2, 5))
    rows = rows_of(a=a, b=b)
    add_differences(rows, confidence=.9)
    found = rows[1]['differences']['a']['novel_ap50']
    low, high = stats.ttest_rel(b, a).confidence_interval(.9)
    assert (found['low'], found['high']) == pytest.approx(
        (100 * low, 100 * high))


def test_which_rows_are_compared():
    few, many = ({
        name: [.1, .2]
        for name in names
    } for names in ('abcd', 'abcde'))
    rows = rows_of(**few)
    add_differences(rows)
    assert [list(row['differences']) for row in rows] == [[], ['a'],
                                                          ['a', 'b'],
                                                          ['a', 'b', 'c']]
    rows = rows_of(**many)
    add_differences(rows)
    assert [list(row['differences']) for row in rows] == [[], ['a'], ['a'],
                                                          ['a'], ['a']]


def test_what_is_not_compared():
    rows = rows_of(a=[.1], b=[.2])
    add_differences(rows)
    assert differences_table(rows) == ''
    rows = rows_of(a=[.1, .2], b=[.2, .3, .4])
    add_differences(rows)
    assert differences_table(rows) == ''
    # a pair with NaN does not count, and one pair has no spread
    nan = math.nan
    rows = rows_of(a=[.1, .2, nan], b=[.2, .4, .9], c=[nan, nan, .5])
    add_differences(rows)
    assert rows[1]['differences']['a']['novel_ap50']['pairs'] == 2
    assert 'novel_ap50' not in rows[2]['differences']['b']
