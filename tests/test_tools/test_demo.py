# Licensed under the Apache License, Version 2.0.
"""tools/demo.py from nothing to its last line, small."""
import json
import re
import runpy
import shlex
import sys
import time
from pathlib import Path

import pytest

SMALL = ('--train', 24, '--val', 12, '--captioned', 24, '--workers', 1)
SHORT = ('--cfg-options', 'train_cfg.max_iters=2', 'train_cfg.val_interval=2',
         'default_hooks.checkpoint.interval=1',
         'default_hooks.logger.interval=1', 'train_dataloader.num_workers=0',
         'train_dataloader.persistent_workers=False',
         'val_dataloader.num_workers=0',
         'val_dataloader.persistent_workers=False',
         'val_dataloader.dataset.pipeline.1.scale=(96,96)',
         'test_dataloader.dataset.pipeline.1.scale=(96,96)')
CAPTIONS = 'demo_captions-tags_best_softmax_compete_more-whole'
CLIM = 'demo_clim_best_softmax_2x2_compete_more-whole'
EQUAL_VIEWS = 'demo_captions-tags_best_softmax_compete_equal-views'
ROWS = ('demo_boxes', CAPTIONS, CLIM)
LONG_ROWS = ('faster-rcnn_r18-c4_256_boxes',
             'faster-rcnn_r18-c4_256_captions-tags',
             'faster-rcnn_r18-c4_256_captions-tags_clim')


@pytest.fixture(scope='module')
def demo(run_tool, start_tool, tmp_path_factory):
    """The demo killed in its second row, the demo after that, its folder."""
    folder = tmp_path_factory.mktemp('demo')
    arguments = ('demo.py', '--work-dir', folder / 'work', '--data-root',
                 folder / 'data', *SMALL, *SHORT)
    first = start_tool(*arguments, log=folder / 'first.log')
    second_row = work_dir(folder, CAPTIONS)
    while first.is_alive() and not (second_row / 'last_checkpoint').exists():
        time.sleep(.02)
    first.kill()
    first.join()
    # The kill may have been late: the row is there, and half of it.
    assert not (work_dir(folder, CLIM) / 'finished').exists()
    code, log = run_tool(*arguments)
    assert code == 0, log
    return (folder / 'first.log').read_text(), log, folder, arguments


def work_dir(folder, row):
    return folder / 'work' / 'seed0' / row


def test_what_it_says(demo):
    first, log, folder, _ = demo
    lines = first.splitlines()
    assert lines[0] == '== demo: timing a few iterations'
    assert lines[1].startswith('== demo: about ')
    assert 'on this machine' in lines[1]
    assert lines[2].startswith('== demo 1/6: data, about ')
    heads = [line for line in lines if ' 2/6: ' in line]
    assert len(heads) == 1 and '(1) boxes, seed 0' in heads[0]
    assert str(work_dir(folder, 'demo_boxes') / 'output.log') in heads[0]
    # The second time there is less to do, and nothing else is printed.
    assert '(1) boxes, seed 0' not in log
    assert log.count('== demo') == 2 + 5
    assert 'INFO' not in first + log and 'Warning' not in first + log
    assert '\r' not in first + log


def test_what_it_leaves(demo):
    _, log, folder, _ = demo
    work = folder / 'work'
    for name in ('table.png', 'curves.png', 'detections.png', 'demo.log'):
        assert (work / name).stat().st_size > 1000
    # all there are of each source: 8 of 24
    assert len(list((work / 'mosaics').iterdir())) == 24
    table = (work / 'table.md').read_text()
    assert table in log
    # 14 whole images and 3 mosaics of 4 tiles
    assert re.search(
        r'Captioned views per step .*: \(1\) boxes 0, '
        r'\(2\) .* 14, \(3\) .* 26\.\n', table)
    rows = json.loads((work / 'table.json').read_text())
    assert [row['name'][:3] for row in rows] == ['(1)', '(2)', '(3)']
    for row in ROWS:
        assert (work_dir(folder, row) / 'finished').exists()
        assert (work_dir(folder, row) / 'found.bbox.json').exists()


def test_it_went_on_where_it_was_killed(demo):
    _, _, folder, _ = demo
    logs = {row: work_dir(folder, row) / 'output.log' for row in ROWS}
    assert 'resumed epoch' in logs[CAPTIONS].read_text()
    assert 'resumed epoch' not in logs['demo_boxes'].read_text()
    # the first row was trained once
    assert len(list(work_dir(folder, 'demo_boxes').glob('2*_*'))) == 1


def test_its_last_lines_can_be_run(demo, run_tool, repository, monkeypatch):
    _, log, folder, _ = demo
    lines = log.splitlines()
    infer, app = (shlex.split(lines[i]) for i in (-3, -1))
    assert infer[1] == 'tools/infer.py' and app[1] == 'tools/app.py'
    assert infer[infer.index('--checkpoint') + 1] == app[-1] == str(
        work_dir(folder, CLIM) / 'iter_2.pth')
    monkeypatch.chdir(repository)
    code, log = run_tool('infer.py', *infer[2:])
    assert code == 0, log
    own = Path(infer[-1])
    assert [file.suffix for file in (own / 'vis').iterdir()] == ['.jpg']
    found = json.loads(next((own / 'preds').iterdir()).read_text())
    assert max(found['scores']) > .3


def test_other_settings_are_refused(demo, run_tool):
    _, _, folder, arguments = demo
    code, log = run_tool(*arguments, 'optim_wrapper.optimizer.lr=0.5')
    assert code == 1
    last = log.splitlines()[-1]
    assert last.startswith(
        f'error: {work_dir(folder, "demo_boxes")}: contains another')
    assert 'optim_wrapper.optimizer.lr is 0.002, wanted 0.5' in last
    assert '--overwrite' in last
    code, log = run_tool(*arguments[:5], '--train', 25, *arguments[7:])
    assert code == 1
    # At once, before anything is timed.
    last = log.splitlines()[-1]
    assert last.startswith(
        f'error: {folder / "data" / "train2017"}: was made with other ')
    assert 'train 24 (wanted 25)' in last and log.count('== demo') == 1
    lost = next((folder / 'data' / 'val2017').iterdir())
    image = lost.read_bytes()
    lost.unlink()
    code, log = run_tool(*arguments)
    lost.write_bytes(image)
    assert code == 1
    assert 'val2017: was changed since it was' in log.splitlines()[-1]


def test_rows_for_several_seeds(repository, monkeypatch, capsys):
    tool = runpy.run_path(str(repository / 'tools' / 'demo.py'))

    def rows(*words):
        monkeypatch.setattr(sys, 'argv', ['demo.py', *words])
        return [(run.row.config, run.seed)
                for run in tool['runs_of'](tool['parse_args']())]

    assert rows() == [(row, 0) for row in ROWS]
    assert rows('--long') == [(row, 0) for row in LONG_ROWS]
    base = 'faster-rcnn_r18-c4_256_base'
    assert rows('--base', '--seeds', '3') == [(base, 3)]
    assert rows('--seeds', '1', '2') == [
        *((row, seed) for seed in (1, 2) for row in ROWS),
        *((EQUAL_VIEWS, seed) for seed in (1, 2))
    ]
    for words, message in ((('--seeds', '1', '1'), 'expected different'),
                           (('--workers', '0'), 'at least 1, got 0'),
                           (('--val', '0'), 'at least 1, got 0'),
                           (('--captioned', 'x'),
                            'at least 1, got x'), (('--seeds', '-1'),
                                                   '0 to 4294967295, got -1'),
                           (('--data-root', "it's"), "without ' and"),
                           (('--data-root', 'a\\b'),
                            "without ' and"), (('--cfg-options', 'lr'),
                                               "key=value, got 'lr'")):
        with pytest.raises(SystemExit):
            rows(*words)
        assert message in capsys.readouterr().err


@pytest.mark.parametrize('written, done', [('iter_100.pth', 100),
                                           ('/x_1/iter_20.pth\n', 20), ('', 0),
                                           ('iter_', 0), ('\0\0', 0)])
def test_a_checkpoint_name_that_is_cut_short(repository, monkeypatch, tmp_path,
                                             written, done):
    tool = runpy.run_path(str(repository / 'tools' / 'demo.py'))
    monkeypatch.setattr(sys, 'argv', ['demo.py', '--work-dir', str(tmp_path)])
    demo = tool['Demo'](tool['parse_args']())
    run = demo.runs[0]
    assert demo._done(run) == 0
    run.work_dir.mkdir(parents=True)
    (run.work_dir / 'last_checkpoint').write_text(written)
    assert demo._done(run) == done
