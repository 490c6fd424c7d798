# Licensed under the Apache License, Version 2.0.
"""A detector as a folder: the same boxes, nothing run, nothing private."""
import json
import os
import re
import shutil

import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mmdet_clim.apis import (
    CLIMInferencer,
    from_pretrained,
    push_to_hub,
    save_pretrained,
)
from mmdet_clim.apis.model_card import metafile_entry, model_card
from mmdet_clim.apis.sharing import load_detector
from mmdet_clim.engine.checkpoints import read_checkpoint

NAME = 'faster-rcnn_r18-c4_256_boxes'


@pytest.fixture(scope='module')
def base(repository):
    folder = repository / 'configs' / 'openmoji'
    return (folder / f'{NAME}.py', folder / 'faster-rcnn_r18-c4_256_base.pth')


@pytest.fixture(scope='module')
def image():
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (96, 128, 3), dtype=np.uint8)


@pytest.fixture(scope='module')
def shared(base, tmp_path_factory):
    """The shipped detector as a folder; its files are not written to."""
    config, checkpoint = base
    return save_pretrained(
        tmp_path_factory.mktemp('shared') / 'emoji',
        checkpoint,
        config,
        licence='cc-by-sa-4.0')


@pytest.fixture
def copy(shared, tmp_path):
    return shutil.copytree(shared, tmp_path / 'copy')


def same(one, other):
    one, other = one['predictions'][0], other['predictions'][0]
    assert one['names'] == other['names'] and one['names']
    np.testing.assert_array_equal(one['bboxes'], other['bboxes'])
    np.testing.assert_array_equal(one['scores'], other['scores'])


def test_the_loaded_detector_finds_the_same(base, shared, image):
    config, checkpoint = base
    plain = CLIMInferencer(
        str(config), str(checkpoint), device='cpu', show_progress=False)
    loaded = from_pretrained(shared, device='cpu', show_progress=False)
    same(plain(image), loaded(image))
    # Base and novel classes are told apart as before.
    head = loaded.model.roi_head.bbox_head
    assert head.vocabulary == plain.model.roi_head.bbox_head.vocabulary
    # The vocabulary stays open.
    names = ['a cat', 'fire truck']
    same(plain(image, vocabulary=names), loaded(image, vocabulary=names))
    other = from_pretrained(
        shared, vocabulary=['cat'], device='cpu', show_progress=False)
    assert set(other(image)['predictions'][0]['names']) == {'cat'}


def test_what_the_folder_holds(base, shared, repository):
    assert sorted(path.name for path in shared.iterdir()) == [
        'README.md', 'config.py', 'model.safetensors', 'vocabulary.json'
    ]
    weights = load_file(shared / 'model.safetensors')
    expected = torch.load(base[1], weights_only=True)['state_dict']
    for name, tensor in weights.items():
        # The shipped file is in half precision.
        torch.testing.assert_close(
            tensor, expected[name].to(tensor.dtype), rtol=0, atol=0)
    vocabulary = json.loads((shared / 'vocabulary.json').read_text())
    assert len(vocabulary['names']) == 65
    assert len(vocabulary['base_names']) == 48
    with safe_open(shared / 'model.safetensors', 'pt') as file:
        meta = json.loads(file.metadata()['dataset_meta'])
    assert meta['classes'] == vocabulary['names']
    # No paths of this machine, no data, no code.
    text = (shared / 'config.py').read_text()
    assert str(repository) not in text and 'data_root' not in text
    assert 'import' not in text and 'init_cfg' not in text
    cfg = Config.fromfile(shared / 'config.py')
    assert set(cfg.keys()) == {'default_scope', 'model', 'test_dataloader'}


def test_a_wrapped_checkpoint_leaves_the_plain_detector(
        base, tmp_path, image, repository, shared):
    """With the config that the checkpoint itself holds, too."""
    config = repository / 'configs/openmoji' / f'{NAME}.py'
    config = config.with_name('faster-rcnn_r18-c4_256_captions-tags_clim.py')
    checkpoint = torch.load(base[1], weights_only=True)
    checkpoint['state_dict'] = {
        f'detector.{name}': weight
        for name, weight in checkpoint['state_dict'].items()
    }
    checkpoint['meta']['cfg'] = Config.fromfile(config).pretty_text
    torch.save(checkpoint, tmp_path / 'wrapped.pth')
    (tmp_path / 'thresholds.json').write_text('{"cat": {"threshold": 0.25}}')
    folder = save_pretrained(tmp_path / 'made', tmp_path / 'wrapped.pth')
    found = from_pretrained(folder, device='cpu', show_progress=False)
    # What fine-tuning chose for its classes is theirs wherever they are.
    assert found.least_score('Cat') == .25 and found.least_score('dog') == .3
    known = from_pretrained(shared, device='cpu', show_progress=False)
    same(found(image), known(image))
    assert 'objectives' not in (folder / 'config.py').read_text()
    assert 'license' not in (folder / 'README.md').read_text().split('---')[1]


def test_files_that_the_config_names_travel(base, tmp_path, image,
                                            monkeypatch):
    vectors = torch.nn.functional.normalize(torch.randn(2, 384), dim=1)
    texts = tmp_path / 'texts' / 'cats.pth'
    texts.parent.mkdir()
    torch.save(dict(names=['cat', 'dog'], vectors=vectors), texts)
    cfg = Config.fromfile(base[0])
    head = cfg.model.roi_head.bbox_head
    head.vocabulary = ['cat', 'dog']
    head.classifier = dict(
        templates=['{}'],
        text_encoder=dict(
            type='mmdet_clim.PrecomputedTextEncoder', file=str(texts)))
    folder = save_pretrained(tmp_path / 'made', base[1], cfg)
    text = (folder / 'config.py').read_text()
    assert 'files/cats.pth' in text and str(tmp_path) not in text
    before = CLIMInferencer(
        cfg, str(base[1]), device='cpu', show_progress=False)(
            image)
    moved = folder.rename(tmp_path / 'moved')
    texts.unlink()
    # Wherever the program stands.
    monkeypatch.chdir(tmp_path)
    same(before,
         from_pretrained(moved.name, device='cpu', show_progress=False)(image))


@pytest.mark.parametrize('line, message', [
    ('import os', 'read as data, and'),
    ("model = dict(type='os.system')", "'os.system', expected the name of a"),
    ("model = __import__('os')", 'read as data, and'),
    ("model = dict(type='mmdet.FasterRCNN', x='http://a/b')", 'downloaded'),
    ("model = dict(type='mmdet.FasterRCNN', x='files/../../a.pth')",
     'expected a file of the folder'),
    ("model = dict(type='mmdet.FasterRCNN', x='files/none.pth')",
     'expected a file of the folder'),
])
def test_a_folder_runs_nothing(copy, line, message):
    with open(copy / 'config.py', 'a') as file:
        file.write(f'\n{line}\n')
    with pytest.raises(ValueError, match=re.escape(message)):
        from_pretrained(copy)
    with pytest.raises(ValueError, match=re.escape(message)):
        push_to_hub(copy, 'nobody/nothing')


@pytest.mark.parametrize('name',
                         ['config.py', 'model.safetensors', 'vocabulary.json'])
def test_a_folder_without_a_file(copy, name):
    (copy / name).unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(f'has no {name}')):
        from_pretrained(copy)


def test_sources_that_are_none(shared, base, tmp_path):
    with pytest.raises(FileNotFoundError, match='expected hf://USER/NAME'):
        from_pretrained('user/name')
    with pytest.raises(ValueError, match='--config: expected none for'):
        load_detector(str(base[0]), str(shared))
    with pytest.raises(FileExistsError, match='expected a new one'):
        save_pretrained(shared, base[1], base[0])
    with pytest.raises(ValueError, match='is a weight of'):
        save_file(dict(a=torch.zeros(1)), tmp_path / 'other.safetensors')
        save_pretrained(tmp_path / 'x', tmp_path / 'other.safetensors',
                        base[0])
    # Nothing half-done is left.
    assert sorted(os.listdir(tmp_path)) == ['other.safetensors']


@pytest.mark.parametrize('content', [b'', b'\xff' * 64])
def test_files_that_are_no_safetensors(tmp_path, content):
    file = tmp_path / 'a.safetensors'
    file.write_bytes(content)
    with pytest.raises(ValueError, match='expected safetensors, got'):
        read_checkpoint(file)


def test_the_hub_is_asked_for_these_files_alone(shared, monkeypatch, image):
    """huggingface_hub itself is not called: there is no network here."""
    asked = {}

    def snapshot_download(repo_id, **kwargs):
        asked.update(kwargs, repo_id=repo_id)
        return str(shared)

    monkeypatch.setattr(huggingface_hub, 'snapshot_download',
                        snapshot_download)
    find = load_detector(
        None, 'hf://user/name', device='cpu', show_progress=False)
    assert find(image)['predictions']
    assert asked['repo_id'] == 'user/name'
    assert sorted(asked['allow_patterns']) == [
        'config.py', 'files/*', 'model.safetensors', 'thresholds.json',
        'vocabulary.json'
    ]


def test_the_card(shared):
    text = (shared / 'README.md').read_text()
    _, head, body = text.split('---\n', 2)
    head = yaml.safe_load(head)
    assert head['license'] == 'cc-by-sa-4.0'
    assert head['pipeline_tag'] == 'zero-shot-object-detection'
    # Of the metafile, and told to be of the config.
    assert '| OpenMoji-COCO | measured novel AP50 | 4.3 |' in body
    assert 'not of this file' in body
    assert '65: `person`' in body and 'and 45 more' in body
    assert metafile_entry(f'elsewhere/{NAME}.py')['Name'] == NAME
    assert metafile_entry('my_own.py') is None
    own = model_card('mine', 'FasterRCNN', ['cat'], 'my_own.py')
    assert 'no licence' in own and '## Config' not in own
    assert '1: `cat`\n' in own


@pytest.mark.parametrize('words, message', [
    ([], 'give --checkpoint, --push or both'),
    (['--push', 'a/b', '--config', 'c.py'], '--config: requires --checkpoint'),
    (['--checkpoint', 'a.pth', '--public'], '--public: requires --push'),
])
def test_wrong_options(run_tool, tmp_path, words, message):
    code, log = run_tool('share.py', '--out-dir', tmp_path / 'x', *words)
    assert code == 2 and message in log


def test_the_tool(run_tool, base, tmp_path):
    config, checkpoint = base
    code, log = run_tool('share.py', '--checkpoint', checkpoint, '--config',
                         config, '--vocabulary', 'cat', 'fire truck',
                         '--out-dir', tmp_path / 'emoji', '--json')
    assert code == 0, log
    assert json.loads(
        log.splitlines()[-1]) == dict(folder=str(tmp_path / 'emoji'))
    names = json.loads((tmp_path / 'emoji/vocabulary.json').read_text())
    assert names['names'] == ['cat', 'fire truck']
    assert (tmp_path / 'emoji/README.md').read_text().count('# emoji') == 1
