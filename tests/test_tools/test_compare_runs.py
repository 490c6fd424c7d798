# Licensed under the Apache License, Version 2.0.
import json
from functools import partial
from pathlib import Path

import pytest


def write_run(work_dir: Path, novel: float) -> str:
    file = work_dir / '20261124_000000' / 'vis_data' / 'scalars.json'
    file.parent.mkdir(parents=True)
    lines = [dict(loss=1., time=.5, iter=10, step=10)]
    if novel >= 0:
        lines.append({
            'ov_coco/base_ap50': .9,
            'ov_coco/novel_ap50': novel,
            'ov_coco/all_ap50': .7,
            'step': 10
        })
    file.write_text('\n'.join(map(json.dumps, lines)))
    return str(work_dir)


@pytest.fixture
def compare(run_tool):
    return partial(run_tool, 'analysis/compare_runs.py')


def test_files_and_table(tmp_path, compare):
    code, log = compare('--run', 'boxes only', write_run(tmp_path / 'a',
                                                         .02), '--run', 'CLIM',
                        write_run(tmp_path / 'b', .2),
                        write_run(tmp_path / 'c', .4), '--out-dir',
                        tmp_path / 'out')
    assert code == 0, log
    table = (tmp_path / 'out' / 'table.md').read_text()
    assert log == table
    assert '30.0 ± 14.1' in table and '0.50' in table
    # one seed against two: nothing to pair
    assert 'difference' not in table and 'views' not in table
    rows = json.loads((tmp_path / 'out' / 'table.json').read_text())
    assert [row['name'] for row in rows] == ['boxes only', 'CLIM']
    assert (tmp_path / 'out' / 'curves.png').stat().st_size > 1000
    code, log = compare('--run', 'CLIM', tmp_path / 'b', '--out-dir',
                        tmp_path / 'out', '--json')
    row, = json.loads(log)
    assert code == 0 and row['name'] == 'CLIM'


def test_seeds_and_views(tmp_path, compare):
    arguments = []
    for name, values in (('boxes', (.02, .04)), ('CLIM', (.2, .4))):
        arguments += ['--run', name]
        for number, value in enumerate(values):
            work_dir = tmp_path / name / str(number)
            arguments.append(write_run(work_dir, value))
            loader = dict(
                batch_size=4,
                dataset=dict(type='mmdet_clim.ImageTextDataset' if name ==
                             'CLIM' else 'mmdet_clim.OVCocoDataset'))
            (work_dir / 'fingerprint.json').write_text(
                json.dumps(
                    dict(version='1', config=dict(train_dataloader=loader))))
    code, log = compare(*arguments, '--out-dir', tmp_path / 'out')
    assert code == 0, log
    assert log.count('\n') == 4 + 2 + 3 + 3
    assert ('Captioned views per step (a tile of a mosaic is one): '
            'boxes 0, CLIM 4.') in log
    # 18 and 36: mean 27, sd 12.73, t of one degree 12.706
    assert '| +27.0 [-87.4, +141.4] |' in log
    row = json.loads((tmp_path / 'out' / 'table.json').read_text())[1]
    assert row['captioned_views'] == 4
    assert row['differences']['boxes']['novel_ap50']['pairs'] == 2


def test_a_table_of_lvis(tmp_path, compare):
    lvis = tmp_path / 'lvis' / '20261124_000000' / 'vis_data' / 'scalars.json'
    lvis.parent.mkdir(parents=True)
    lvis.write_text(
        json.dumps({
            f'ov_lvis/{kind}_ap{letter}': value
            for value, letter in zip((.1, .2, .3), 'rcf')
            for kind in ('box', 'mask')
        } | dict(step=10)))
    code, log = compare('--run', 'CLIM', tmp_path / 'lvis', '--out-dir',
                        tmp_path / 'out')
    assert code == 0, log
    head, _, row = log.splitlines()
    cells = dict(zip(head.split('|'), row.split('|')))
    assert float(cells[' mask APr ']) == 10 and float(cells[' box APf ']) == 30
    code, log = compare('--run', 'CLIM', tmp_path / 'lvis', '--run', 'coco',
                        write_run(tmp_path / 'coco', .2), '--out-dir',
                        tmp_path)
    assert code == 1 and "one metric, got ['ov_coco/', 'ov_lvis/']" in log


def test_a_table_of_clips(tmp_path, compare):
    before = tmp_path / 'before' / '20261124_000000'
    before.mkdir(parents=True)
    values = {
        'region/roi_all_top1': .1,
        'region/mask_all_top5': .2,
        'retrieval/image_to_text_r1': .3
    }
    (before / '20261124_000000.json').write_text(json.dumps(values))
    after = tmp_path / 'after' / '20261124_000000' / 'vis_data'
    after.mkdir(parents=True)
    after.joinpath('scalars.json').write_text('\n'.join([
        json.dumps(dict(loss=1., time=.5, iter=10, step=10)),
        json.dumps({
            key: 2 * value
            for key, value in values.items()
        } | dict(step=10))
    ]))
    code, log = compare('--run', 'original', before.parent, '--run', 'CLIM',
                        after.parents[1], '--out-dir', tmp_path / 'out')
    assert code == 0, log
    head, _, *rows = log.splitlines()
    names = [name.strip() for name in head.split('|')]
    first, last = (
        dict(zip(names, (c.strip() for c in row.split('|')))) for row in rows)
    assert first['box top-1'] == '10.0' and last['box top-1'] == '20.0'
    assert last['mask top-5'] == '40.0'
    assert last['image to text R@1'] == '60.0'
    assert first['s/iter'] == '–' and last['s/iter'] == '0.50'
    assert (tmp_path / 'out' / 'curves.png').stat().st_size > 1000


def test_run_without_metrics(tmp_path, compare):
    code, log = compare('--run', 'a', write_run(tmp_path / 'a', -1),
                        '--out-dir', tmp_path)
    assert code == 1
    assert 'expected metrics of OVCocoMetric' in log


@pytest.mark.parametrize('arguments, message', [
    ([], 'arguments are required: --run'),
    (['--run', 'a'], '--run a: expected at least one work dir'),
    (['--run', 'a', 'x', '--run', 'a', 'y'
      ], '--run a: expected each name once'),
])
def test_wrong_rows(tmp_path, compare, arguments, message):
    code, log = compare(*arguments, '--out-dir', tmp_path)
    assert code == 2 and message in log
