# Licensed under the Apache License, Version 2.0.
"""Grounding DINO as a graph of its present classes."""
import sys
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmdet.models.data_preprocessors import DetDataPreprocessor
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config

from mmdet_clim.apis import write_onnx
from mmdet_clim.apis.onnx_image import OnnxImage
from mmdet_clim.apis.onnx_operators import replace_boolean_where
from mmdet_clim.models.families import family_of
from mmdet_clim.registry import MODELS, TRANSFORMS

for folder in ('test_configs', '../tools'):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))
from grounding_cases import shrink  # noqa: E402  isort: skip
from run_onnx import OnnxRunner, read_embeddings  # noqa: E402  isort: skip

CONFIG = 'mm_grounding_dino/grounding_dino_swin-t_pretrain_obj365.py'
SCALE = (96, 96)
NAMES = ['cat', 'traffic light', 'dog']
MOST = 30
# As mmdet's config has it, but for the scale.
RESIZE = dict(
    type='mmdet.FixScaleResize',
    scale=SCALE,
    keep_ratio=True,
    backend='pillow')
PAD = dict(type='mmdet.Pad', pad_val=dict(img=(114, 114, 114)))


@pytest.fixture(scope='module')
def detector(bert):
    register_all_modules(init_default_scope=True)
    cfg = Config.fromstring(f"_base_ = ['mmdet::{CONFIG}']", '.py')
    model = shrink(cfg.model, bert)
    model.test_cfg.max_per_img = MOST
    torch.manual_seed(0)
    detector = MODELS.build(model).eval()
    detector.init_weights()
    detector.dataset_meta = dict(classes=NAMES)
    # Random weights have the same to say of every query.
    for branch in detector.bbox_head.cls_branches:
        branch.bias.data.fill_(0)
    return detector


def predict(detector, image, resize, padding):
    """mmdet's own way from pixels to boxes."""
    results = dict(img=image, img_shape=image.shape[:2])
    results = padding(resize(results))
    sample = DetDataSample(
        metainfo=dict(
            img_shape=results['img_shape'],
            ori_shape=image.shape[:2],
            scale_factor=results['scale_factor'],
            text=tuple(NAMES),
            custom_entities=True))
    pixels = torch.from_numpy(results['img'].transpose(2, 0, 1).copy())
    with torch.no_grad():
        return detector.test_step(
            dict(inputs=[pixels], data_samples=[sample]))[0].pred_instances


def test_the_boxes_of_mmdet(detector, tmp_path):
    pipeline = [RESIZE, dict(PAD, size=SCALE)]
    resize, padding = map(TRANSFORMS.build, pipeline)
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    file = write_onnx(detector, cfg, tmp_path / 'graph.onnx')
    names, none = read_embeddings(file)
    assert names == NAMES and none.shape == (len(NAMES), 0)
    run = OnnxRunner(tmp_path / 'graph.onnx')
    assert run.class_names == NAMES and list(run.inputs) == ['image']
    # The language model is not needed any more.
    weights = onnx.load(tmp_path / 'graph.onnx').graph.initializer
    assert not [w.name for w in weights if 'language_model' in w.name]
    for height, width in ((120, 200), (97, 60), (96, 96)):
        image = np.random.default_rng(height).integers(0, 256,
                                                       (height, width, 3),
                                                       np.uint8)
        expected = predict(detector, image, resize, padding)
        found = run(image, NAMES, none)
        assert len(found['scores']) == len(expected) == MOST
        np.testing.assert_allclose(found['scores'], expected.scores, atol=1e-5)
        for box, score, label in zip(expected.bboxes.numpy(), expected.scores,
                                     expected.labels):
            # Almost equal scores may change places.
            same = [
                i for i, name in enumerate(found['names'])
                if name == NAMES[label] and abs(found['scores'][i] -
                                                score) < 1e-4
            ]
            if score > expected.scores[-1] + 1e-4:
                apart = np.abs(found['boxes'][same] - box).max(1)
                assert apart.min() < 0.05
    with pytest.raises(ValueError, match='expected .*traffic light.* got'):
        run(image, NAMES[::-1], none)


@pytest.mark.parametrize('size', [(150, 260), (51, 37), (96, 96), (96, 31)])
def test_pillows_pixels(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    prepare = OnnxImage(DetDataPreprocessor(), (133, 80))
    resize = TRANSFORMS.build(dict(RESIZE, scale=(133, 80)))
    prepare.resample_as(resize)
    found, shape, factors = prepare(torch.from_numpy(image))
    expected = resize(dict(img=image, img_shape=size))
    assert tuple(shape.int().tolist()) == expected['img'].shape[:2]
    np.testing.assert_allclose(factors[:2], expected['scale_factor'])
    np.testing.assert_array_equal(found[0].permute(1, 2, 0), expected['img'])


@pytest.mark.parametrize('padding, changes, message', [
    (None, {}, r'expected a Pad with size=, at least \(96, 96\)'),
    (dict(size_divisor=32), {}, 'expected a Pad with size='),
    (dict(size=(96, 64)), {}, 'expected a Pad with size='),
    (dict(size=(96, 96)), dict(dataset_meta={}), 'part of the graph'),
    (dict(size=(96, 96)), dict(chunked_size=2), 'which are read in 2'),
])
def test_what_has_no_graph(detector, monkeypatch, padding, changes, message):
    if 'dataset_meta' in changes:
        monkeypatch.setattr(detector, 'dataset_meta', {})
    if 'chunked_size' in changes:
        monkeypatch.setitem(detector.test_cfg, 'chunked_size', 2)
    with pytest.raises(TypeError, match=message):
        family_of(detector).onnx_graph(
            detector, SCALE, padding
            and TRANSFORMS.build(dict(PAD, **padding)))


def test_where_of_booleans():
    kind = onnx.TensorProto.BOOL
    inputs = [
        onnx.helper.make_tensor_value_info(name, kind, [8]) for name in 'cab'
    ]
    # Another one, of numbers, stays.
    nodes = [
        onnx.helper.make_node('Where', list('cab'), ['d']),
        onnx.helper.make_node('Cast', ['d'], ['e'], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node('Where', ['c', 'e', 'e'], ['f'])
    ]
    graph = onnx.helper.make_graph(
        nodes, 'g', inputs,
        [onnx.helper.make_tensor_value_info('f', onnx.TensorProto.FLOAT, [8])])
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid('', 17)], ir_version=8)
    replace_boolean_where(model)
    onnx.checker.check_model(model)
    assert [n.op_type for n in model.graph.node].count('Where') == 1
    rows = np.array(list(product([False, True], repeat=3)))
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider'])
    found, = session.run(None, dict(zip('cab', rows.T)))
    assert found.tolist() == [a if c else b for c, a, b in rows]
