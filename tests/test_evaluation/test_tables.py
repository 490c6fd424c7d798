# Licensed under the Apache License, Version 2.0.
import math

import pytest

from mmdet_clim.evaluation import markdown_table, summarise_runs


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
