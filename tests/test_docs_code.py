# Licensed under the Apache License, Version 2.0.
"""The Python blocks of the pages run, with small data and models."""
import ast
import json
import os
import re
import shutil
import tarfile

import mmdet.utils
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.config import Config
from mmengine.registry import (
    DATASETS,
    HOOKS,
    LOOPS,
    MODELS,
    TRANSFORMS,
    VISUALIZERS,
    DefaultScope,
)

from mmdet_clim.models.backbones import DenseImageTower
from mmdet_clim.models.losses import CLIMRegionLoss

#: Blocks that nothing runs here, by page and number, and why.
NOT_RUN = {
    ('finetune.md', 0): 'FiftyOne is no requirement of the tests',
}
#: Blocks that other tests run.
ELSEWHERE = {
    ('onnx.md', 0): 'test_apis/test_onnx_grounding.py',
    ('own_config.md', 0): 'test_packaging/test_mim.py',
    ('own_detector.md', 0): 'test_docs.py',
    ('own_detector.md', 1): 'test_docs.py',
    ('own_objective.md', 0): 'test_docs.py',
    ('own_objective.md', 1): 'test_docs.py',
    ('walk_through.md', 0): 'test_tools/test_walk_through.py',
}
#: Blocks that the tests below run.
HERE = {('README.md', 0), ('README.md', 1), ('baron.md', 0),
        ('checkpoints.md', 0), ('data.md', 0), ('data.md', 1),
        ('detectors.md', 0), ('detectors.md', 1), ('fvit.md', 0),
        ('inference.md', 0), ('inference.md', 1), ('long_tail.md', 0),
        ('long_tail.md', 1), ('long_tail.md', 2), ('pictures.md', 0),
        ('region_clip.md', 0), ('sharing.md', 0), ('tracking.md', 0),
        ('tracking.md', 1), ('tracking.md', 2)}
BLOCK = re.compile(r'^( *)```python\n(.*?)^\1```', re.DOTALL | re.MULTILINE)
TEXT = dict(context_length=77, vocab_size=49408, width=16, heads=2, layers=1)
CLIP = dict(
    embed_dim=24,
    quick_gelu=True,
    vision_cfg=dict(
        image_size=32, layers=2, width=32, patch_size=16, head_width=16),
    text_cfg=TEXT)


def python_blocks(page):
    return [
        re.sub(f'^{indent}', '', text, flags=re.MULTILINE)
        for indent, text in BLOCK.findall(page.read_text(encoding='utf-8'))
    ]


@pytest.fixture(scope='module')
def block(repository):
    """The text of a block, with the configs of this tree as bases."""

    def read(page, number):
        folder = repository if page == 'README.md' else repository / 'docs'
        text = python_blocks(folder / page)[number]
        return text.replace('mmdet_clim::', f'{repository}/configs/')

    return read


@pytest.fixture(scope='module')
def base(repository):
    """The line of a config that is based on one for OpenMoji."""
    return lambda name: (f"_base_ = '{repository}/configs/openmoji/"
                         f"faster-rcnn_r18-c4_256_{name}.py'\n")


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty folder, in which the pages' relative paths are."""
    monkeypatch.chdir(tmp_path)
    mmdet.utils.register_all_modules(init_default_scope=False)
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield tmp_path


@pytest.fixture
def photo(openmoji_root, workplace):
    image = next((openmoji_root / 'val2017').glob('*.jpg'))
    (workplace / 'photos').mkdir()
    for name in ('street.jpg', 'photo.jpg', 'photos/a.jpg'):
        shutil.copy(image, workplace / name)


@pytest.fixture
def detector(repository, base, workplace):
    """The shipped detector, under the names of the pages."""
    weights = (
        repository / 'configs/openmoji' / 'faster-rcnn_r18-c4_256_base.pth')
    for name in ('config.py', 'detector.py', 'my_detector.py'):
        (workplace / name).write_text(base('boxes'))
    for name in ('iter_600.pth', 'detector.pth'):
        (workplace / name).symlink_to(weights)


@pytest.fixture
def clip(small_clips, workplace):
    """A block in which OpenAI's weights are those of a small tower."""
    import open_clip
    names = ('ViT-B-16-quickgelu', 'ViT-B-32-quickgelu')
    with small_clips(workplace / 'models', dict.fromkeys(names, CLIP)):
        torch.save(open_clip.create_model(names[0]).state_dict(), 'clip.pt')
        yield lambda text: text.replace("'openai'", "'clip.pt'")


def run(text, **names):
    """What a block defines, and the value of its last expression."""
    body = ast.parse(text).body
    value = None
    if isinstance(body[-1], ast.Expr):
        value = body.pop().value
    exec(compile(ast.Module(body, []), 'block', 'exec'), names)
    if value is not None:
        value = eval(compile(ast.Expression(value), 'block', 'eval'), names)
    return names, value


def read_config(text):
    """The config that a block is, or a part of."""
    with open('block.py', 'w', encoding='utf-8') as file:
        file.write(text)
    return Config.fromfile('block.py')


def test_every_block_runs_or_has_a_reason(repository):
    pages = [
        repository / 'README.md', *sorted(repository.glob('docs/*.md')),
        *sorted(repository.glob('configs/**/README.md'))
    ]
    found = {(page.name, number)
             for page in pages
             for number in range(len(python_blocks(page)))}
    assert found == {*NOT_RUN, *ELSEWHERE, *HERE}
    for test in ELSEWHERE.values():
        assert (repository / 'tests' / test).is_file()


@pytest.mark.parametrize('page', ['README.md', 'inference.md', 'sharing.md'])
def test_inference(block, detector, photo, page):
    names, value = run(block(page, 0))
    prediction, = names.get('found') or value
    assert len(prediction['scores']) == len(prediction['bboxes']) > 0
    assert set(prediction['names']) <= {'cat', 'fire truck'}


def test_the_short_config(block, detector):
    cfg = read_config(block('README.md', 1))
    model = MODELS.build(cfg.model)
    assert set(model.objectives) == {'caption', 'tag'}
    plain = MODELS.build(Config.fromfile('my_detector.py').model)
    assert type(model.detector) is type(plain)


def test_vectors_of_a_published_file(block, base):
    names = CocoDataset.METAINFO['classes']
    vectors = np.eye(len(names), 384, dtype=np.float32)
    np.savez('coco_80.npz', names=names, vectors=vectors)
    text = block('checkpoints.md', 0)
    assert "_base_ = ['CONFIG']" in text
    cfg = read_config(text.replace("_base_ = ['CONFIG']", base('boxes')))
    classifier = MODELS.build(cfg.model).roi_head.bbox_head.fc_cls
    places = [names.index(name) for name in classifier.vocabulary.names]
    torch.testing.assert_close(classifier.class_embeddings,
                               torch.from_numpy(vectors[places]))


def test_dense_heads_and_backbones(block):
    head = MODELS.build(run(block('detectors.md', 0))[0]['bbox_head'])
    head.set_vocabulary(['cat', 'fire truck'])
    maps = [torch.rand(1, 256, 2, 2)] * len(head.strides)
    assert head(maps)[0][0].shape == (1, 2, 2, 2)
    backbone = MODELS.build(run(block('detectors.md', 1))[0]['backbone'])
    with torch.no_grad():
        maps = backbone(torch.rand(1, 3, 64, 64))
    assert [len(of[0]) for of in maps] == list(backbone.out_channels)
    assert [64 // of.shape[-1] for of in maps] == list(backbone.strides)


def test_captions_with_the_classes_of_lvis(block, photo):
    for folder in ('data/lvis/annotations', 'data/cc3m/training'):
        os.makedirs(folder)
    shutil.copy('photo.jpg', 'data/cc3m/training/0.jpg')
    with open('data/lvis/annotations/lvis_v1_train_cat_info.json', 'w') as f:
        json.dump([
            dict(id=i, name=name, frequency=frequency, image_count=1)
            for i, (name, frequency) in enumerate([('alarm_clock',
                                                    'r'), ('cat', 'f')], 1)
        ], f)
    with open('data/cc3m/cc3m_train_tags.jsonl', 'w') as f:
        f.write(
            json.dumps(
                dict(
                    file_name='0.jpg',
                    captions=['an alarm clock'],
                    tags=['alarm clock'])))
    data = DATASETS.build(run(block('data.md', 0))[1])
    assert len(data) == 1
    assert data.metainfo['classes'] == ('alarm clock', 'cat')


def test_a_stream_of_shards(block, photo):
    with tarfile.open('00000.tar', 'w') as shard:
        shard.add('photo.jpg', '0.jpg')
        with open('0.txt', 'w') as f:
            f.write('a cat')
        shard.add('0.txt')
    with open('names.txt', 'w') as f:
        f.write('cat')
    text = block('data.md', 1)
    local = text.replace('s3://bucket/cc12m/{00000..01242}', '{00000..00000}')
    assert local != text
    source, = run(local, clim_pipeline=[])[1:]
    assert source.pop('num_samples') == 12_000_000
    data = DATASETS.build(dict(source, num_samples=1))
    assert len(data) == 1 and data.metainfo['classes'] == ('cat', )


def test_options_for_the_long_tail(block, base, openmoji_root, monkeypatch):
    monkeypatch.setenv('OPENMOJI_ROOT', f'{openmoji_root}/')
    cfg = read_config(
        base('captions-tags_clim') + 'balanced = ' + block('long_tail.md', 0) +
        block('long_tail.md', 1) + 'mosaic = ' + block('long_tail.md', 2))
    sources = DATASETS.build(cfg.train_dataloader.dataset).datasets
    assert len(sources) == len(cfg.train_dataloader.sampler.source_ratio) == 4
    assert 0 < len(sources[3]) < len(sources[2])
    assert len(DATASETS.build(cfg.balanced)) >= len(sources[2])
    assert TRANSFORMS.build(cfg.mosaic).grids == ((2, 2), (3, 3), (4, 4))
    hook = HOOKS.build(cfg.custom_hooks[-1])
    assert type(hook).__name__ == 'GridScheduleHook'


def test_many_data_sets(block, monkeypatch):
    monkeypatch.setenv('ROBOFLOW100_ROOT', 'data/rf100')
    cfg = read_config(block('inference.md', 1)).test_cfg
    assert LOOPS.get(cfg.type).__name__ == 'DetectionSetsLoop'
    assert 'rf100' in cfg.root


def test_pictures_and_trackers(block, base, photo):
    training = base('captions-tags_clim')
    cfg = read_config(training + block('pictures.md', 0))
    for hook in cfg.custom_hooks:
        HOOKS.build(hook)
    backends = []
    for number, head in enumerate(['', training, training]):
        cfg = read_config(head + block('tracking.md', number))
        visualizer = VISUALIZERS.build(
            dict(cfg.visualizer, name=str(number), save_dir='.'))
        _, tracker = visualizer._vis_backends.values()
        backends.append(type(tracker).__name__)
    assert backends == [
        'TensorboardVisBackend', 'MLflowVisBackend', 'WandbVisBackend'
    ]


def test_parts_of_baron(block, clip):
    parts = run(clip(block('baron.md', 0)))[0]
    bag = MODELS.build(parts['objectives']['bag'])
    loss, = (
        part for part in bag.modules() if isinstance(part, CLIMRegionLoss))
    assert loss.loss_weight == 10
    encoder = MODELS.build(parts['classifier']['text_encoder'])
    assert encoder(['cat', 'dog']).shape == (2, TEXT['width'])
    kind = MODELS.get(parts['classifier']['type'])
    assert kind.__name__ == 'PseudoWordClassifier'


def test_dense_features(block, clip):
    names = run(
        clip(block('fvit.md', 0)),
        images=torch.rand(2, 3, 64, 48),
        rois=torch.tensor([[1., 0, 0, 32, 32]]))[0]
    assert names['dense'].shape == (2, 24, 4, 3)
    torch.testing.assert_close(names['dense'].norm(dim=1), torch.ones(2, 4, 3))
    assert names['regions'].shape == (1, 24)
    assert names['whole'].shape == (2, 24)


def test_a_clip_as_a_file(block, clip):
    run(clip(block('region_clip.md', 0)))
    saved = torch.load('vit-b-16.pt')
    assert saved.keys() == torch.load('clip.pt').keys()
    DenseImageTower('ViT-B-16-quickgelu', pretrained='vit-b-16.pt')
