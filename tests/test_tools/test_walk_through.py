# Licensed under the Apache License, Version 2.0.
"""The commands of docs/walk_through.md, one after the other, at small size."""
import json
import re
import shlex
import subprocess
from pathlib import Path

from mmdet_clim_cli.__main__ import COMMANDS, Group

# In the place of what the page says.
SMALL = {
    '--train': '8',
    '--val': '4',
    '--captioned': '24',
    '--iterations': '1',
}
# What the page leaves to the defaults.
MORE = {
    'make_openmoji_coco.py': ['--workers', '1', '--json'],
    'finetune.py': ['--batch-size', '3', '--workers', '0', '--json'],
    'infer.py': ['--json'],
    'embed_classes.py': ['--json'],
}


def blocks(page):
    """Language and text of the parts that run."""
    return re.findall(r'```(bash|python)\n(.*?)```', page, re.DOTALL)


def small(words):
    """A command with other numbers."""
    return [
        SMALL.get(before, word) for before, word in zip(['', *words], words)
    ]


def test_the_page(repository, tmp_path, monkeypatch, run_tool, capsys):
    monkeypatch.chdir(tmp_path)
    page = (repository / 'docs' / 'walk_through.md').read_text()
    ran, printed = [], []
    for language, text in blocks(page):
        if language == 'python':
            exec(text, {})
            continue
        for line in text.replace('\\\n', ' ').splitlines():
            clim, *words = shlex.split(line)
            if clim != 'clim':
                subprocess.run(line, shell=True, check=True)
                continue
            command = COMMANDS[words.pop(0)]
            if isinstance(command, Group):
                command = command.commands[words.pop(0)]
            tool = command.script
            name = tool.rpartition('/')[2]
            if name == 'run_onnx.py':
                # Eight scenes have other names than two hundred.
                words[-1] = str(next(tmp_path.glob('data/scenes/val2017/*')))
            code, log = run_tool(tool, *small(words), *MORE.get(name, ()))
            assert code == 0, f'{line}\n{log}'
            ran.append(name)
            # What other programs read is the last line.
            printed.append(json.loads(log.splitlines()[-1]))
    assert ran == [
        'make_openmoji_coco.py', 'finetune.py', 'infer.py', 'finetune.py',
        'embed_classes.py', 'run_onnx.py'
    ]
    first, second = tmp_path / 'work_dirs/first', tmp_path / 'work_dirs/second'
    # All that the table of the page lists, and nothing of it by accident.
    table = page[page.index('| file | for |'):page.index('Start with')]
    for name in re.findall(r'`(\w+\.\w+)`', table):
        assert (first / name).is_file()
    assert '<h2>What it knew before</h2>' in (first /
                                              'report.html').read_text()
    labels = json.loads((first / 'pseudo_labels.json').read_text())
    assert len(labels['images']) == 24
    # A detector of one step still proposes what captions name.
    assert {a['category_id'] for a in labels['annotations']}
    assert (second / 'detector.safetensors').is_file()
    assert not (second / 'report.html').exists()
    assert len(list((tmp_path / 'found' / 'vis').iterdir())) == 4
    scenes, tuned, found, _, embedded, of_graph = printed
    assert scenes == dict(out_dir='data/scenes', made=True)
    assert tuned['files'] == {
        kind: f'work_dirs/first/{name}'
        for kind, name in dict(
            config='detector.py',
            checkpoint='detector.pth',
            safetensors='detector.safetensors',
            labels='pseudo_labels.json',
            onnx='detector.onnx',
            report='report.html').items()
    }
    assert tuned['metrics'] == json.loads((first / 'metrics.json').read_text())
    assert found['out_dir'] == 'found' and found['videos'] == {}
    # Each class from the score on that the fine-tuning chose.
    least = {
        name: of['threshold']
        for name, of in json.loads((first /
                                    'thresholds.json').read_text()).items()
        if of['threshold'] is not None
    }
    assert least
    for file, boxes in found['images'].items():
        written = json.loads((tmp_path / 'found' / 'preds' /
                              f'{Path(file).stem}.json').read_text())
        # A threshold is the score of a box, which another batch gives with
        # another last digit: such a box may be on either side.
        scores = zip(written['scores'], written['names'])
        over = [(score, score - least.get(name, .3)) for score, name in scores]
        shown = [box['score'] for box in boxes]
        assert shown == [
            score for score, above in over
            if above > 1e-6 or above > -1e-6 and score in shown
        ]
    assert len(found['images']) == 4
    assert embedded['names'] == 2 and embedded['width'] == 384
    assert set(of_graph) == {'image', 'boxes', 'scores', 'names'}
