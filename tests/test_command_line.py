# Licensed under the Apache License, Version 2.0.
"""``clim`` and the tools: help at once, old names of options, exit codes."""
import argparse
import ast
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mmdet_clim import __version__
from mmdet_clim.datasets.preparation import ov_coco
from mmdet_clim.evaluation import CLASS_AP
from mmdet_clim_cli import options
from mmdet_clim_cli.__main__ import COMMANDS, Command, main, script_of
from mmdet_clim_cli.options import Parser

#: Packages that take longer to import than a help may.
HEAVY = ('mmcv', 'mmdet', 'mmdet_clim', 'mmengine', 'open_clip', 'torch',
         'torchvision', 'transformers')
HELPS = """
import contextlib, io, json, runpy, sys
heavy, calls = json.loads(sys.stdin.read())
result = {}
for name, (script, *words) in calls.items():
    sys.argv = [script, *words]
    out = io.StringIO()
    status = None
    try:
        with contextlib.redirect_stdout(out):
            if script == 'clim':
                from mmdet_clim_cli.__main__ import main
                main(words)
            else:
                sys.path.insert(0, script.rpartition('/')[0])
                runpy.run_path(script, run_name='__main__')
    except SystemExit as stop:
        status = stop.code
    loaded = [package for package in heavy if package in sys.modules]
    result[name] = [status, out.getvalue(), loaded]
    if loaded:
        break
print(json.dumps(result))
"""


def commands():
    """Words of every command of clim, and the command."""
    for name, command in COMMANDS.items():
        if isinstance(command, Command):
            yield (name, ), command
        else:
            for inner, command_of_group in command.commands.items():
                yield (name, inner), command_of_group


def test_every_help_is_there_at_once(repository):
    tools = [
        path for path in (repository / 'tools').rglob('*.py')
        if "__name__ == '__main__'" in path.read_text()
    ]
    calls = {str(path): [str(path), '--help'] for path in tools}
    calls['clim'] = ['clim', '--help']
    for name, command in COMMANDS.items():
        if not isinstance(command, Command):
            calls[f'clim {name}'] = ['clim', name, '--help']
    for words, _ in commands():
        calls['clim ' + ' '.join(words)] = ['clim', *words, '--help']
    done = subprocess.run([sys.executable, '-c', HELPS],
                          input=json.dumps([HEAVY, calls]),
                          capture_output=True,
                          text=True,
                          check=True)
    found = json.loads(done.stdout)
    slow = {name: loaded for name, (_, _, loaded) in found.items() if loaded}
    assert not slow
    assert list(found) == list(calls)
    for name, (status, text, _) in found.items():
        assert status == 0, name
        assert text.startswith('usage: '), name
        if name.startswith('clim ') and name != 'clim onnx':
            assert text.startswith(f'usage: {name} '), name
            # Whoever installed the wheel has no tools/.
            assert not re.search(r'tools/[\w/]+\.py', text), name
            assert '``' not in text and '\\\\' not in text, name
        # Each line of an example on a line of its own.
        assert not re.search(r'\.py .*\S {4,}\S', text), name


def test_every_command_has_a_script_of_its_own():
    scripts = [command.script for _, command in commands()]
    assert len(set(scripts)) == len(scripts) >= 20
    for _, command in commands():
        assert script_of(command).is_file(), command
        # What begins a line of the help.
        assert command.summary[0].islower() or command.summary[1].isupper()


@pytest.mark.parametrize('words, status, message', [
    ([], 2, 'the following arguments are required: COMMAND'),
    (['trian'], 2, "invalid choice: 'trian'"),
    (['prepare'], 2, 'clim prepare: error: the following arguments'),
    (['prepare', 'lvis'], 2, "invalid choice: 'lvis'"),
    (['--version'], 0, ''),
    (['train'], 2, 'clim train: error: the following arguments are required'),
    (['config', 'none.py'], 1, ''),
])
def test_exit_codes(monkeypatch, capsys, words, status, message):
    monkeypatch.setattr(options, 'PROGRAM', [])
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.setattr(sys, 'argv', ['clim', *words])
    monkeypatch.delenv('MMDET_CLIM_TRACEBACK', raising=False)
    with pytest.raises(SystemExit) as stop:
        main()
    if status == 1:
        # Python prints a text and exits with 1.
        assert re.match('error: .*none.py', stop.value.code)
    else:
        assert stop.value.code == status
    assert message in capsys.readouterr().err


def test_the_version_is_that_of_the_package_that_runs(capsys):
    with pytest.raises(SystemExit):
        main(['--version'])
    assert capsys.readouterr().out == f'clim {__version__}\n'


def test_a_command_gets_its_own_words(tmp_path, monkeypatch, capsys):
    """Also those that ``clim`` has itself, and lists, and options first."""
    monkeypatch.setattr(options, 'PROGRAM', [])
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.setattr(sys, 'argv', ['clim'])
    config = tmp_path / 'config.py'
    config.write_text('model = dict(b=1)\ntrain_cfg = dict(c=1)\n')
    main([
        'config',
        str(config), '--cfg-options', 'model.b=[2,3]', 'train_cfg.c=x'
    ])
    cfg = {}
    exec(compile(ast.parse(capsys.readouterr().out), 'out', 'exec'), cfg)
    assert cfg['model'] == dict(b=[2, 3])
    assert cfg['train_cfg'] == dict(c='x')


def renamed_parser():
    parser = Parser(prog='tool', renamed={'--out': '--out-dir'})
    parser.add_argument('inputs', nargs='*')
    parser.add_argument('--out-dir', required=True)
    parser.add_argument('--output-format')
    return parser


@pytest.mark.parametrize('words, out, inputs, warned', [
    (['--out-dir', 'x'], 'x', [], False),
    (['--out', 'x', 'a'], 'x', ['a'], True),
    (['a', '--out=x'], 'x', ['a'], True),
    (['--out=', 'a'], '', ['a'], True),
    (['--out-dir', 'x', '--', '--out', '--output'], 'x', ['--out', '--output'
                                                          ], False),
])
def test_old_names_of_options(capsys, words, out, inputs, warned):
    args = renamed_parser().parse_args(words)
    assert (args.out_dir, args.inputs) == (out, inputs)
    error = capsys.readouterr().err
    assert error == (
        'tool: warning: --out is now called --out-dir; the old name will be '
        'removed in the next release\n' if warned else '')
    assert '--out ' not in renamed_parser().format_help()


def test_the_old_name_of_a_detector_s_config(repository, monkeypatch, capsys,
                                             tmp_path):
    for name in ('a.py', 'a.pth', 'names.txt'):
        (tmp_path / name).touch()
    monkeypatch.setattr(sys, 'path', list(sys.path))
    tool = runpy.run_path(str(repository / 'tools' / 'finetune.py'))
    words = [
        '--checkpoint', tmp_path / 'a.pth', '--images', tmp_path,
        '--vocabulary', tmp_path / 'names.txt'
    ]
    for name in ('--config', '--detector'):
        args = tool['parse_args'](
            [str(word) for word in (name, tmp_path / 'a.py', *words)])
        assert args.config == tmp_path / 'a.py'
    warning, = capsys.readouterr().err.splitlines()
    assert 'warning: --detector is now called --config' in warning
    with pytest.raises(SystemExit):
        tool['parse_args']([str(word) for word in words])
    assert '--config' in capsys.readouterr().err


@pytest.mark.parametrize('word, expected', [
    ('mmdet_clim::openmoji/demo_clim.py', 'mmdet_clim/.mim/configs/openmoji/'
     'demo_clim.py'),
    ('--config=mmdet_clim::openmoji/demo_clim.py',
     'mmdet_clim/.mim/configs/openmoji/demo_clim.py'),
    ('mmdet::rtmdet/rtmdet_s_8xb32-300e_coco.py',
     'mmdet/.mim/configs/rtmdet/rtmdet_s_8xb32-300e_coco.py'),
    ('mmdet_clim::openmoji/none.py', None),
    ('mmdet_clim::', None),
    ('no_such_package::a.py', None),
    ('json::a.py', None),
    ('a.b::c.py', None),
    ('::', None),
    ('a red car', None),
])
def test_files_of_packages(word, expected):
    parser = Parser(prog='tool')
    parser.add_argument('--config')
    words = [word] if word.startswith('--') else ['--config', word]
    found = parser.parse_args(words).config
    if expected is None:
        assert found == word
    else:
        assert found.endswith(expected) and Path(found).is_file()


def test_a_missing_option_is_asked_for_by_its_new_name(capsys):
    with pytest.raises(SystemExit) as stop:
        renamed_parser().parse_args([])
    assert stop.value.code == 2
    assert 'required: --out-dir' in capsys.readouterr().err


def test_one_name_per_idea(repository):
    """No tool offers a second name for what STYLE.md has one name for."""
    others = {
        '--classes', '--ckpt', '--cfg', '--output-dir', '--outdir',
        '--num-workers', '--random-seed', '--load-from', '--gpu', '--detector',
        '--num-images'
    }
    for path in (repository / 'tools').rglob('*.py'):
        names = {
            word.value
            for call in ast.walk(ast.parse(path.read_text()))
            if isinstance(call, ast.Call)
            and getattr(call.func, 'attr', '') == 'add_argument'
            for word in call.args if isinstance(word, ast.Constant)
        }
        assert not names & others, path
        # --out is a file, --out-dir a folder; not both for one thing.
        assert not {'--out', '--out-dir'} <= names, path


#: Commands that print no result: why.
WITHOUT_JSON = dict(
    train='a run logs to its work dir, as JSON lines',
    app='a service',
    demo='table.json',
    onnx='prints JSON as it is',
    config='prints Python',
    mosaics='pictures',
    maps='pictures',
    nearest='nearest.json',
    detections='pictures')


def test_results_are_printed_for_programs_too():
    for words, command in commands():
        text = script_of(command).read_text()
        assert ('add_json(parser)' in text) != (words[-1]
                                                in WITHOUT_JSON), words


def test_a_result_as_json(capsys):
    parser = argparse.ArgumentParser()
    options.add_json(parser)
    result = dict(file=Path('a/b'), mean=np.float32(.5), of=[np.int64(3)])
    options.print_result(parser.parse_args(['--json']), result, 'text')
    printed = capsys.readouterr().out
    assert printed == '{"file": "a/b", "mean": 0.5, "of": [3]}\n'
    options.print_result(parser.parse_args([]), result, 'text')
    options.print_result(parser.parse_args([]), result)
    assert capsys.readouterr().out == 'text\n'


def test_mistakes_have_one_form(repository):
    """``sys.exit`` of a text is status 1 and begins as docs/ says."""
    for folder in ('tools', 'mmdet_clim'):
        for path in (repository / folder).rglob('*.py'):
            if 'misc' in path.parts:
                # The set-up has a log and lines of its own.
                continue
            for call in ast.walk(ast.parse(path.read_text())):
                if not (isinstance(call, ast.Call)
                        and ast.unparse(call.func) == 'sys.exit'):
                    continue
                word = call.args[0]
                if isinstance(word, ast.JoinedStr):
                    word = word.values[0]
                if isinstance(getattr(word, 'value', None), str):
                    assert word.value.startswith('error: '), path


def test_choices_of_the_help_are_those_of_the_package(repository):
    """They are written down again, as the package takes long to import."""
    for script, name, expected in (('datasets/prepare_ov_coco.py', 'PARTS',
                                    ov_coco.PARTS), ('analysis/class_ap.py',
                                                     'KINDS', CLASS_AP)):
        tree = ast.parse((repository / 'tools' / script).read_text())
        values = [
            ast.literal_eval(node.value) for node in tree.body
            if isinstance(node, ast.Assign) and node.targets[0].id == name
        ]
        assert values == [tuple(expected)]


def test_the_stack_still_speaks_for_itself(tmp_path):
    """A stack that can not work is one line, behind the command line."""
    (tmp_path / 'torch').mkdir()
    (tmp_path / 'torch' /
     '__init__.py').write_text("raise ImportError('no torch here')")
    script = ('import sys; sys.argv = ["clim", "strip", "a.pth", "b.pth"]\n'
              'from mmdet_clim_cli.__main__ import main\nmain()')
    done = subprocess.run([sys.executable, '-c', script],
                          capture_output=True,
                          text=True,
                          env=dict(
                              os.environ,
                              PYTHONPATH=os.pathsep.join(
                                  [str(tmp_path), os.environ['PYTHONPATH']])))
    assert done.returncode == 1
    assert 'no torch here' in done.stderr


def test_options_are_read_as_mmengine_does():
    parser = argparse.ArgumentParser()
    options.add_cfg_options(parser, default={})
    assert parser.parse_args([]).cfg_options == {}
    given = parser.parse_args(['--cfg-options', 'a=1,2', 'b.c="[(1,x)]"'])
    assert given.cfg_options == {'a': [1, 2], 'b.c': [(1, 'x')]}


@pytest.mark.parametrize('words, message', [
    ('demo.py --seeds 0 -1', '--seeds: expected a whole number, 0 to '
     '4294967295, got -1'),
    ('demo.py --train 1.5', '--train: expected a whole number, at least 1'),
    ('analysis/ablation.py tools/demo.py --out-dir x --seeds 2 2',
     '--seeds: expected different ones, got [2, 2]'),
    ('analysis/ablation.py tools/demo.py --out-dir x --seeds 4294967296',
     'got 4294967296'),
    ('analysis/bootstrap_ap.py --annotations a --run b c --out d '
     '--resamples 1', 'at least 2, got 1'),
    ('analysis/class_ap.py --run a b --out-dir c --num 0', 'at least 1'),
    ('analysis/error_types.py a b --iou inf', 'at most 1, got inf'),
    ('finetune.py --seed -1', '--seed: expected a whole number, 0 to'),
    ('run_onnx.py a b c --score-thr nan', 'expected 0 to 1, got nan'),
    ('visualization/browse_mosaics.py a --out-dir b --seed -1', 'got -1'),
    ('visualization/browse_mosaics.py a --out-dir b --side 0', 'at least 1'),
    ('visualization/nearest_texts.py --seed x', 'got x'),
    ('visualization/response_maps.py --clusters 0', 'at least 1, got 0'),
])
def test_numbers_that_are_out_of_range(repository, monkeypatch, capsys, words,
                                       message):
    """Before anything is imported or trained."""
    script, *words = words.split()
    monkeypatch.chdir(repository)
    path = str(repository / 'tools' / script)
    monkeypatch.setattr(sys, 'argv', [path, *words])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(path, run_name='__main__')
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
