# Licensed under the Apache License, Version 2.0.
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


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


def compare(*arguments):
    return subprocess.run(
        [sys.executable, 'tools/analysis/compare_runs.py', *arguments],
        cwd=ROOT,
        env=dict(PYTHONPATH=str(ROOT), PATH='/usr/bin:/bin'),
        capture_output=True,
        text=True)


def test_files_and_table(tmp_path):
    done = compare('--run', 'boxes only', write_run(tmp_path / 'a', .02),
                   '--run', 'CLIM', write_run(tmp_path / 'b', .2),
                   write_run(tmp_path / 'c',
                             .4), '--out', str(tmp_path / 'out'))
    assert done.returncode == 0, done.stderr
    table = (tmp_path / 'out' / 'table.md').read_text()
    assert done.stdout == table
    assert '30.0 ± 14.1' in table and '0.50' in table
    rows = json.loads((tmp_path / 'out' / 'table.json').read_text())
    assert [row['name'] for row in rows] == ['boxes only', 'CLIM']
    assert (tmp_path / 'out' / 'curves.png').stat().st_size > 1000


def test_run_without_metrics(tmp_path):
    done = compare('--run', 'a', write_run(tmp_path / 'a', -1), '--out',
                   str(tmp_path))
    assert done.returncode != 0
    assert 'expected metrics of OVCocoMetric' in done.stderr


def test_row_without_work_dir(tmp_path):
    done = compare('--run', 'a', '--out', str(tmp_path))
    assert done.returncode == 2
    assert 'at least one work dir' in done.stderr
