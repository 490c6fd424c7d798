# Licensed under the Apache License, Version 2.0.
"""Two lines from a config and a checkpoint to boxes, for every family."""
import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.hub import get_config
from mmengine.registry import init_default_scope

import mmdet_clim  # noqa: F401
from mmdet_clim.apis import CLIMInferencer
from mmdet_clim.registry import MODELS

TRAINED = ['cat', 'dog', 'cow', 'bus', 'cup']
ONE = ['zebra']
# More than in training, in mixed case, and of several words and levels.
MANY = [
    'Zebra', 'fire truck', 'cat', 'wine_glass', 'a red bus', 'U.S. mail',
    'bat (animal)'
]
WIDTH = 16
CASES = [('c4', False), ('c4', True), ('fpn', True), ('centernet2', True),
         ('baron', True), ('fvit', True), ('atss', False), ('atss', True),
         ('mm-grounding-dino', False), ('mm-grounding-dino', True)]


@pytest.fixture(scope='module')
def texts(tmp_path_factory):
    """An encoder of all words here, random vectors."""
    names = list(dict.fromkeys(TRAINED + ONE + MANY))
    file = tmp_path_factory.mktemp('texts') / 'texts.pth'
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(len(names), WIDTH, generator=generator)
    torch.save(dict(names=names, vectors=vectors), file)
    return dict(
        text_encoder=dict(
            type='mmdet_clim.PrecomputedTextEncoder', file=str(file)),
        templates=('{}', ))


@pytest.fixture
def family(repository, texts, tmp_path, monkeypatch):
    """The config of a family's plain detector, of random weights."""
    folder = repository / 'configs/openmoji'

    def own(name, **changes):
        cfg = Config.fromfile(folder / f'{name}.py')
        set_vocabulary(cfg.model, TRAINED, **changes)
        return cfg

    def fvit():
        import open_clip
        clip = folder / 'open_clip_small.json'
        open_clip.add_model_config(clip)
        torch.manual_seed(0)
        weights = tmp_path / 'clip.pt'
        torch.save(open_clip.create_model(clip.stem).state_dict(), weights)
        monkeypatch.setenv('OPENMOJI_CLIP', str(weights))
        return own('fvit_clip-small_256')

    def fpn():
        cfg = of_mmdet('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
        cfg.model.roi_head.bbox_head = dict(
            type='mmdet_clim.ZeroShotConvFCBBoxHead',
            vocabulary=TRAINED,
            classifier=texts,
            num_shared_fcs=2,
            in_channels=256,
            fc_out_channels=WIDTH,
            roi_feat_size=7,
            reg_class_agnostic=True,
            bbox_coder=cfg.model.roi_head.bbox_head.bbox_coder,
            loss_bbox=dict(type='mmdet.L1Loss'))
        return cfg

    def atss():
        cfg = of_mmdet('atss/atss_r50_fpn_1x_coco.py')
        cfg.model.bbox_head = dict(
            type='mmdet_clim.ZeroShotHead',
            vocabulary=TRAINED,
            classifier=texts,
            head=cfg.model.bbox_head)
        return cfg

    makers = {
        'c4': lambda: own('faster-rcnn_r18-c4_256_boxes'),
        'fpn': fpn,
        'centernet2': lambda: own('centernet2_r18_lvis_boxes', **texts),
        'baron': lambda: own('baron_r18-c4_256_boxes'),
        'fvit': fvit,
        'atss': atss,
        'mm-grounding-dino': lambda: own('mm-grounding-dino_r18_160_boxes'),
    }

    def make(name):
        cfg = makers[name]()
        cfg.model.backbone.pop('init_cfg', None)
        # Of random weights, no class scores much.
        test_cfg = cfg.model.test_cfg
        test_cfg.get('rcnn', test_cfg).score_thr = 0.
        return cfg

    return make


def of_mmdet(path):
    """A config of mmdet, of depth 18 and for images of 128 pixels."""
    cfg = get_config(f'mmdet::{path}')
    cfg.model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    cfg.model.neck.in_channels = [8, 16, 32, 64]
    cfg.test_dataloader.dataset.pipeline[1].scale = (128, 128)
    return cfg


def set_vocabulary(node, names, **classifier):
    """Have every part that classifies by text begin with these names."""
    if isinstance(node, dict):
        if 'classifier' in node:
            node['vocabulary'] = names
            for key, value in classifier.items():
                # An update would merge encoders of two kinds.
                node['classifier'][key] = value
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            set_vocabulary(value, names, **classifier)


def wrap(detector, text_encoder):
    """The detector under ``CLIMDetector``, one objective."""
    objective = dict(
        type='mmdet_clim.RegionCaptionObjective',
        loss=dict(type='mmdet_clim.CLIMRegionLoss', bias=-5.))
    return ConfigDict(
        type='mmdet_clim.CLIMDetector',
        detector=detector,
        text_encoder=text_encoder,
        objectives=dict(caption=objective))


@pytest.mark.parametrize('name, wrapped', CASES)
def test_a_family(family, name, wrapped, texts, tmp_path):
    init_default_scope('mmdet')
    cfg = family(name)
    plain = copy.deepcopy(cfg.model)
    if wrapped:
        classifier = next(classifiers(plain), texts)
        cfg.model = wrap(cfg.model, classifier['text_encoder'])
    cfg.dump(tmp_path / 'config.py')
    torch.manual_seed(0)
    trained = MODELS.build(cfg.model)
    trained.init_weights()
    torch.save(dict(state_dict=trained.state_dict()), tmp_path / 'weights.pth')
    detector = trained.detector if wrapped else trained

    find = CLIMInferencer(
        str(tmp_path / 'config.py'),
        str(tmp_path / 'weights.pth'),
        device='cpu',
        show_progress=False)
    image = np.random.RandomState(0).randint(0, 256, (96, 128, 3), np.uint8)
    for names in (ONE, MANY):
        found = find(image, vocabulary=names)['predictions'][0]
        assert len(found['names']) and set(found['names']) <= set(names)
        expected = by_hand(find, plain, detector.state_dict(), names, image)
        assert found['names'] == [names[i] for i in expected.labels.tolist()]
        assert found['labels'] == expected.labels.tolist()
        np.testing.assert_allclose(found['scores'], expected.scores, atol=1e-6)
        np.testing.assert_allclose(found['bboxes'], expected.bboxes, atol=1e-4)
    # It stays until it is replaced, for as many images as there are.
    again = find([image, image], batch_size=2)['predictions']
    # Scores of a batch round differently, so near ones may change places.
    np.testing.assert_allclose(again[1]['scores'], found['scores'], atol=1e-4)
    assert set(again[1]['names']) <= set(MANY)
    for wrong, message in ((['a', 'a'], 'given twice'), ([' '], 'non-empty')):
        with pytest.raises(ValueError, match=message):
            find(image, vocabulary=wrong)
    assert find(image)['predictions'][0] == found


def by_hand(find, model, weights, names, image):
    """What a detector that is built with these names predicts."""
    model = copy.deepcopy(model)
    set_vocabulary(model, names)
    if model.type == 'mmdet_clim.FViT':
        model.roi_head.trained_vocabulary = TRAINED
    detector = MODELS.build(model).eval()
    detector.load_state_dict(weights)
    data = find.pipeline(dict(img=image))
    data = pseudo_collate([data])
    data['data_samples'][0].set_metainfo(
        dict(text=tuple(names), custom_entities=True))
    with torch.no_grad():
        return detector.test_step(data)[0].pred_instances.cpu()


def classifiers(node):
    """The configs of what classifies by text."""
    if isinstance(node, dict):
        if 'classifier' in node:
            yield node['classifier']
        node = list(node.values())
    if isinstance(node, (list, tuple)):
        for value in node:
            yield from classifiers(value)


def test_what_a_grounding_detector_needs(family, tmp_path):
    init_default_scope('mmdet')
    cfg = family('mm-grounding-dino')
    find = CLIMInferencer(cfg, device='cpu', show_progress=False)
    image = np.zeros((96, 128, 3), np.uint8)
    with pytest.raises(
            ValueError, match='GroundingDINO needs the class names'):
        find(image)
    # Three tokens each, with the points between them.
    many = [f'{word} {other}' for word in TRAINED for other in TRAINED] * 6
    many = [f'{name} {number}' for number, name in enumerate(many)]
    with pytest.raises(ValueError, match='at most 256 tokens together, got'):
        find(image, vocabulary=many)
    find.model.test_cfg.chunked_size = 40
    found = find(image, vocabulary=many)['predictions'][0]
    assert set(found['names']) <= set(many)
    # mmdet's own way.
    find.model.test_cfg.chunked_size = -1
    found = find(image, texts='cat . fire truck', custom_entities=True)
    assert set(found['predictions'][0]['names']) <= {'cat', 'fire truck'}
