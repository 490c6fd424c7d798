# Licensed under the Apache License, Version 2.0.
"""The config in a checkpoint, by honest people and by others."""
import pytest
from mmengine.config import Config

from mmdet_clim.engine.checkpoint_config import (
    checkpoint_config,
    read_literals,
)

MODEL = "model = dict(type='mmdet.FasterRCNN', {})\n"


def read(text, keys=('model', 'test_dataloader')):
    return checkpoint_config(dict(meta=dict(cfg=text)), 'a.pth', keys)


@pytest.mark.parametrize('name', [
    'openmoji/faster-rcnn_r18-c4_256_boxes',
    'openmoji/mm-grounding-dino_r18_160_clim',
    'openmoji/centernet2_r18_lvis_clim',
    'baron/ov_coco/baron_r50-caffe-c4_90k_ov-coco_captions_clim',
    'detic/ov_lvis/detic_r50-centernet2_45k_ov-lvis_captions-tags_clim',
])
def test_what_mmengine_writes_is_read_as_it_is(repository, name, monkeypatch,
                                               tmp_path):
    (tmp_path / 'clip.pt').write_bytes(b'')
    for variable in ('CLIP_VIT_B_32', 'CLIP_VIT_B_16', 'CLIP_RN50'):
        monkeypatch.setenv(variable, str(tmp_path / 'clip.pt'))
    cfg = Config.fromfile(repository / f'configs/{name}.py')
    text = cfg.pretty_text
    assert read_literals(text) == cfg.to_dict()
    found = read(text)
    assert set(found) == {'model', 'test_dataloader', 'default_scope'}
    assert found.to_dict() == without_first_weights(
        {key: cfg.to_dict()[key]
         for key in found})


def without_first_weights(value):
    if isinstance(value, dict):
        return {
            key: without_first_weights(child)
            for key, child in value.items() if key != 'init_cfg'
        }
    if isinstance(value, (list, tuple)):
        return type(value)(map(without_first_weights, value))
    return value


def test_all_kinds_of_literals():
    text = ("a = 1\nb = -2.5\nc = 'x' 'y'\nd = [1, (2, ), None, True]\n"
            "e = dict({'1x': 2, 'y': dict(z=[])}, w=3)\nf = {3: 'a'}\n"
            "g = (\n    1,\n    2)\nh = 1e-05\ni = dict()\n")
    assert read_literals(text) == dict(
        a=1,
        b=-2.5,
        c='xy',
        d=[1, (2, ), None, True],
        e={
            '1x': 2,
            'y': dict(z=[]),
            'w': 3
        },
        f={3: 'a'},
        g=(1, 2),
        h=1e-5,
        i={})


@pytest.mark.parametrize('line', [
    'import os',
    'from os import system',
    'x = __import__("os").system("touch {trace}")',
    'x = open("{trace}", "w")',
    'x = [open("{trace}", "w") for _ in (1, )]',
    'x = f"{{open(\'{trace}\', \'w\')}}"',
    'x = (lambda: open("{trace}", "w"))()',
    'x = dict(a=open("{trace}", "w"))',
    'x = dict(**dict(a=1))',
    'x = dict([(1, 2)])',
    'x = {{**{{}}}}',
    'x = {{open("{trace}", "w"): 1}}',
    'x = "a" * 10**10',
    'x = 9**9**9',
    'x = a.b',
    'x = y = 1',
    'x.y = 1',
    'x: int = 1',
    'x = 1 if 2 else 3',
    'with open("{trace}", "w"): pass',
    'class A: x = open("{trace}", "w")',
    '@open\ndef f(): pass',
    'dict = 1; x = dict(a=1); exec("")',
    '_base_ = ["/etc/passwd"]; import os',
    'x = ' + '[' * 1000 + ']' * 1000,
    'x = ' + '-' * 100_000 + '1',
    'x = (',
    'x = "\0"',
    'x = b""',
    'x = 1j',
    'x = ...',
])
def test_what_is_no_data_is_refused_and_not_run(tmp_path, line):
    trace = tmp_path / 'trace'
    with pytest.raises(ValueError, match='--config') as caught:
        read(line.format(trace=trace) if '{trace}' in line else line)
    assert str(caught.value).startswith('a.pth: ')
    assert '\n' not in str(caught.value)
    assert not trace.exists()


@pytest.mark.parametrize(
    'content, place',
    [
        ("backbone=dict(type='os.system', command='touch {trace}')",
         'model.backbone.type'),
        ("backbone=dict(type='subprocess.run', args='touch {trace}')",
         'model.backbone.type'),
        ("backbone=dict(type='mmengine.load', file='{trace}.pkl')",
         'model.backbone.type'),
        ("backbone=dict(type='mmdet.apis.init_detector')",
         'model.backbone.type'),
        ("backbone=dict(type='evil')", 'model.backbone.type'),
        ("backbone=dict(type='evil.Backbone')", 'model.backbone.type'),
        ("backbone=dict(type=['os.system'])", 'model.backbone.type'),
        ('backbone=dict(type=None)', 'model.backbone.type'),
        ("a=[dict(b=(dict(type='os.system'), ))]",
         r'model.a\[0\].b\[0\].type'),
        # mmcv.ops.batched_nms runs this type by eval().
        ("test_cfg=dict(nms=dict(type='open(\"{trace}\", \"w\")'))",
         'model.test_cfg.nms.type'),
        ("test_cfg=dict(nms=dict(type='exec'))", 'model.test_cfg.nms.type'),
        ("cmc=dict(type='CameraMotionCompensation', "
         "warp_mode='open(\"{trace}\", \"w\")')", 'model.cmc.warp_mode'),
        ("backbone=dict(pretrained='http://127.0.0.1:9/a.pth')",
         'model.backbone.pretrained'),
        ("backbone=dict(pretrained='torchvision://resnet50')",
         'model.backbone.pretrained'),
        ('backbone=dict(pretrained=True)', 'model.backbone.pretrained'),
        ("text_encoder=dict(pretrained='openai')",
         'model.text_encoder.pretrained'),
        ("text_encoder=dict(model='hf-hub:evil/model')",
         'model.text_encoder.model'),
        ("language_model=dict(type='mmdet.BertModel', name='evil/bert')",
         'model.language_model.name'),
        ("backbone=dict(type='BertModel')", 'model.backbone.name'),
        ("bbox_head=dict(lang_model_name='evil/bert')",
         'model.bbox_head.lang_model_name'),
        ("language_model=dict(type='mmdet_clim.BertLanguageModel', "
         "package='evil.inner')", 'model.language_model.package'),
        # A registry imports these names as it does types.
        ("backbone=dict(type='ResNet', _scope_='evil')",
         'model.backbone._scope_'),
        ('_scope_=[]', 'model._scope_'),
        ("bbox_head=dict(vocabulary=dict(dataset='evil.Data'))",
         'model.bbox_head.vocabulary.dataset'),
        ("bbox_head=dict(vocabulary='evil.MyDataset')",
         'model.bbox_head.vocabulary'),
        ("loader=dict(collate_fn='os.system')", 'model.loader.collate_fn'),
        # A path that mmdet reads as a config.
        ("teacher_config='evil.py'", 'model.teacher_config'),
        ("text_encoder=dict(model='hf_hub:evil/model')",
         'model.text_encoder.model'),
    ])
def test_what_building_would_import_run_or_fetch(tmp_path, monkeypatch,
                                                 content, place):
    trace = tmp_path / 'trace'
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / 'evil.py').write_text(f'open({str(trace)!r}, "w")')
    text = MODEL.format(content.replace('{trace}', str(trace)))
    with pytest.raises(ValueError, match=f'{place} .*--config'):
        read(text)
    assert not trace.exists()


def test_a_scope_that_would_be_imported(tmp_path, monkeypatch):
    """A registry imports SCOPE.registry of the default scope and of types."""
    trace = tmp_path / 'trace'
    (tmp_path / 'evil').mkdir()
    for name in ('__init__', 'registry'):
        (tmp_path / 'evil' /
         f'{name}.py').write_text(f'open({str(trace)!r}, "w")')
    monkeypatch.syspath_prepend(tmp_path)
    for text in ("default_scope = 'evil'\n", "default_scope = ['evil']\n"):
        with pytest.raises(ValueError, match='default_scope'):
            read(MODEL.format('') + text)
    with pytest.raises(ValueError, match='model.type'):
        read("model = dict(type='evil.Model')")
    assert not trace.exists()


@pytest.mark.parametrize('text', [
    'model = 3', "model = [dict(type='mmdet.FasterRCNN')]",
    MODEL.format('') + 'test_dataloader = None'
])
def test_parts_that_are_no_dicts(text):
    with pytest.raises(ValueError, match='expected a dict.*--config'):
        read(text)


def test_names_of_data_sets_that_are_known():
    content = ("bbox_head=dict(vocabulary=dict(dataset='mmdet_clim."
               "OVCocoDataset'), _scope_='mmdet')")
    head = read(MODEL.format(content)).model.bbox_head
    assert head.vocabulary.dataset == 'mmdet_clim.OVCocoDataset'
    for names in ("'cat, dog'", "'names.txt'", "'OVCocoDataset'"):
        read(MODEL.format(f'bbox_head=dict(vocabulary={names})'))


def test_imports_and_hooks_are_left_out(tmp_path):
    trace = tmp_path / 'trace'
    found = read(
        MODEL.format("init_cfg=dict(type='Pretrained', "
                     "checkpoint='http://127.0.0.1:9/a.pth')") +
        f"custom_imports = dict(imports=['evil'])\n"
        f"custom_hooks = [dict(type='os.system', command='touch {trace}')]\n"
        "load_from = 'http://127.0.0.1:9/a.pth'\n"
        "visualizer = dict(type='evil.Visualizer')\n"
        "text = '{{$HOME:x}} {{fileDirname}}'\n")
    assert found.to_dict() == dict(
        model=dict(type='mmdet.FasterRCNN'), default_scope='mmdet')


@pytest.mark.parametrize(
    'checkpoint',
    [dict(),
     dict(meta=None),
     dict(meta=dict()),
     dict(meta=dict(cfg=3))])
def test_no_config(checkpoint):
    with pytest.raises(
            ValueError, match='contains no config: give its --config'):
        checkpoint_config(checkpoint, 'a.pth')
