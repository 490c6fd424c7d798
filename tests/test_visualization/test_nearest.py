# Licensed under the Apache License, Version 2.0.
import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from PIL import Image

from mmdet_clim.registry import MODELS
from mmdet_clim.visualization import (
    ReadRegion,
    best_of_images,
    draw_nearest_regions,
    draw_nearest_texts,
    view_model,
)
from mmdet_clim.visualization.nearest import OTHER, OWN, draw_region

CONFIG = 'configs/openmoji/faster-rcnn_r18-c4_256_captions-tags_clim.py'
WEIGHTS = 'configs/openmoji/faster-rcnn_r18-c4_256_base.pth'
PICTURES = [np.full((40, 60, 3), 60 * (i + 1), np.uint8) for i in range(3)]
REGIONS = [
    ReadRegion(image, torch.tensor([10., 5, 30, 25])) for image in (0, 0, 2)
]


def test_one_region_of_each_image():
    cosines = torch.tensor([[.9, .1], [.8, .3], [.2, .2]])
    # Both regions of image 0 are nearer to the first text than image 2's.
    assert best_of_images(cosines, [0, 0, 2], 2) == [[0, 2], [1, 2]]
    assert best_of_images(cosines, [0, 0, 2], 1) == [[0], [1]]
    assert best_of_images(cosines[:, :0], [0, 0, 2], 1) == []


def has(picture, colour):
    return (np.asarray(picture) == colour).all(-1).any()


def test_own_texts_are_green():
    texts, own = ['a dog', 'a cat', 'a bus'], [[0], [], [2]]
    near = torch.tensor([[.9, .1, .2]])
    far = torch.tensor([[.1, .9, .2]])
    shown = [
        draw_nearest_texts(PICTURES, REGIONS[:1], texts, own, cosines, num)
        for cosines, num in ((near, 1), (far, 1), (far, 3))
    ]
    # Of its own captions, the best is shown with its place in any case.
    assert all(has(picture, OWN) for picture in shown)
    assert np.asarray(shown[0]).tolist() != np.asarray(shown[1]).tolist()


def test_regions_of_own_images_are_green():
    cosines = torch.tensor([[.9], [.8], [.2]])
    of_image_2 = draw_nearest_regions(
        PICTURES, REGIONS, ['a dog'], [[], [], [0]], cosines, num=1)
    assert has(of_image_2, OTHER) and not has(of_image_2, OWN)
    both = draw_nearest_regions(PICTURES, REGIONS, ['a dog'], [[], [], [0]],
                                cosines)
    assert has(both, OTHER) and has(both, OWN)


def test_a_region_is_as_it_was_and_the_rest_paler():
    picture = draw_region(PICTURES[0], torch.tensor([10., 5, 30, 25]), 120)
    assert picture.shape == (80, 120, 3)
    assert picture[30, 40].tolist() == [60] * 3
    assert picture[70, 110].min() > 100
    # A box without area is drawn all the same.
    draw_region(PICTURES[0], torch.tensor([10., 5, 10, 5]), 120)


def test_a_model_without_texts():
    with pytest.raises(TypeError, match='Linear does not classify by text'):
        view_model(torch.nn.Linear(1, 1))


@pytest.fixture
def zero_shot(tmp_path):
    """What makes a head of mmdet one of a single class, by text."""
    init_default_scope('mmdet')
    file = tmp_path / 'texts.pth'
    torch.save(dict(names=['cat'], vectors=torch.ones(1, 8)), file)
    encoder = dict(type='mmdet_clim.PrecomputedTextEncoder', file=str(file))
    return lambda head: dict(
        type='mmdet_clim.ZeroShotHead',
        vocabulary=['cat'],
        classifier=dict(text_encoder=encoder, templates=('{}', )),
        head=head)


@torch.no_grad()
def test_a_detr_is_read_without_a_wrapper(zero_shot):
    """By its queries; each window has the embedding of one of them."""
    model = get_config('mmdet::detr/detr_r18_8xb2-500e_coco.py').model
    model.backbone.update(base_channels=8, init_cfg=None)
    model.neck.in_channels = [64]
    model.encoder.num_layers = model.decoder.num_layers = 1
    model.bbox_head = zero_shot(model.bbox_head)
    detector = MODELS.build(model).eval()
    view = view_model(detector)
    image = view.look(torch.zeros(3, 60, 90, dtype=torch.uint8))
    assert view.propose(image, (60, 90)).shape[1] == 4
    boxes = torch.tensor([[0., 0., 30., 30.], [40., 10., 90., 60.]])
    found = view.read(image, boxes)
    assert found.shape == (2, 8)
    seen = []
    detector.bbox_head.fc_cls.projection.register_forward_hook(
        lambda module, inputs, output: seen.append(output[-1, 0]))
    view.read(image, boxes)
    for embedding in found:
        assert (seen[0] - embedding).norm(dim=1).min() < 1e-4
    maps = view.responses(image, view.encode_texts(['cat']))
    assert maps.shape[1:] == image.size


def test_a_detector_that_only_its_wrapper_reads(zero_shot):
    model = get_config(
        'mmdet::sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py').model
    model.backbone.init_cfg = None
    model.roi_head.num_stages = 1
    model.roi_head.stage_loss_weights = [1]
    model.roi_head.bbox_head = [zero_shot(model.roi_head.bbox_head[0])]
    with pytest.raises(TypeError, match='SparseRCNN through a projection'):
        view_model(MODELS.build(model))


@torch.no_grad()
def test_a_model_looks_at_an_image_once(repository):
    init_default_scope('mmdet')
    cfg = Config.fromfile(repository / CONFIG)
    model = MODELS.build(cfg.model).eval()
    seen = []
    model.detector.backbone.register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].shape))
    view = view_model(model)
    image = view.look(torch.zeros(3, 60, 90, dtype=torch.uint8))
    boxes = view.propose(image, (60, 90))[:2]
    maps = view.responses(image, view.encode_texts(['a cat']))
    assert maps.shape[1:] == image.size and boxes.shape == (2, 4)
    assert len(view.read(image, boxes)) == 2
    assert view.dense_features(image).ndim == 3
    assert len(seen) == 1


def test_the_tool(repository, openmoji_root, run_tool, tmp_path):
    folder = openmoji_root / 'annotations'
    common = [
        repository / CONFIG, repository / WEIGHTS, '--captions',
        folder / 'captions_train2017_tags.json', '--images',
        openmoji_root / 'train2017', '--num-images', 4, '--size', 64
    ]
    code, log = run_tool('visualization/nearest_texts.py', *common,
                         '--regions', 2, '--texts', 'a cat', '--out-dir',
                         tmp_path / 'proposals')
    assert code == 0, log
    found = json.loads((tmp_path / 'proposals/nearest.json').read_text())
    assert len(found['regions']) == 8 and len(
        {region['image']
         for region in found['regions']}) == 4
    assert found['texts'][0]['text'] == 'a cat'
    # Four images, and of each its best region.
    assert len({r['image'] for r in found['texts'][0]['nearest']}) == 4
    for name in ('nearest_texts', 'nearest_regions'):
        picture = Image.open(tmp_path / f'proposals/{name}.png')
        assert np.asarray(picture).std() > 10

    code, log = run_tool('visualization/nearest_texts.py', *common, '--boxes',
                         folder / 'instances_train2017.json', '--out-dir',
                         tmp_path / 'boxes')
    assert code == 0, log
    found = json.loads((tmp_path / 'boxes/nearest.json').read_text())
    truth = json.loads((folder / 'instances_train2017.json').read_text())
    names = {image['id']: image['file_name'] for image in truth['images']}
    # xywh of the file, as xyxy.
    wanted = {(names[a['image_id']], round(a['bbox'][0] + a['bbox'][2]))
              for a in truth['annotations']}
    assert found['regions'] and all(
        (r['image'].split('/')[-1], round(r['box'][2])) in wanted
        for r in found['regions'])
    cosines = [n['cosine'] for n in found['regions'][0]['nearest']]
    assert cosines == sorted(cosines, reverse=True)


def test_wrong_options(run_tool, tmp_path):
    code, log = run_tool('visualization/nearest_texts.py', 'a.py', 'a.pth',
                         '--captions', 'a.json', '--top', 0, '--out-dir',
                         tmp_path)
    assert code == 2 and '--top: expected at least 1, got 0' in log
