# Licensed under the Apache License, Version 2.0.
import json

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.registry import init_default_scope

from mmdet_clim.apis import CLIMInferencer, parse_names, set_vocabulary
from mmdet_clim.registry import MODELS

CONFIGS = 'configs/openmoji'


@pytest.fixture(scope='module')
def base(repository):
    """The shipped detector, and its weights."""
    folder = repository / CONFIGS
    return (str(folder / 'faster-rcnn_r18-c4_256_boxes.py'),
            str(folder / 'faster-rcnn_r18-c4_256_base.pth'))


@pytest.fixture(scope='module')
def images(openmoji_root):
    return sorted((openmoji_root / 'val2017').glob('*.jpg'))[:3]


@pytest.fixture
def find(base):
    return CLIMInferencer(*base, device='cpu', show_progress=False)


def test_words_of_ones_own(find, images):
    image = str(images[0])
    found = find(image)['predictions'][0]
    best = found['names'][0]
    assert found['scores'] == sorted(found['scores'], reverse=True)
    # The same box has the same name where the name is one of a few ...
    few = find(image, vocabulary=['a thing', best])['predictions'][0]
    assert few['names'][0] == best
    np.testing.assert_allclose(few['bboxes'][0], found['bboxes'][0], atol=1e-3)
    np.testing.assert_allclose(few['scores'][0], found['scores'][0], atol=1e-5)
    # ... and the vocabulary stays until it is replaced.
    assert set(find(image)['predictions'][0]['names']) <= {'a thing', best}
    alone = find(image, vocabulary=[best])['predictions'][0]
    assert set(alone['names']) == {best}


def test_texts_are_names_for_each_image(find, images):
    paths = [str(path) for path in images]
    found = find(paths, texts=['cat . car .', 'cat . car .', 'bus'])
    names = [set(of['names']) for of in found['predictions']]
    assert names[0] | names[1] <= {'cat', 'car'} and names[2] == {'bus'}
    with pytest.raises(ValueError, match='one for each of 3 images, got 2'):
        find(paths, texts=['cat', 'dog'])
    with pytest.raises(ValueError, match='beside a vocabulary'):
        find(paths, texts='cat', vocabulary=['dog'])


def test_an_image_in_memory_is_its_file(find, images):
    from_file = find(str(images[0]), return_vis=True)
    from_memory = find(cv2.imread(str(images[0])), return_vis=True)
    assert from_file['predictions'] == from_memory['predictions']
    # Drawn in the same colours.
    np.testing.assert_array_equal(from_file['visualization'],
                                  from_memory['visualization'])


def test_what_is_written(find, images, tmp_path):
    folder = tmp_path / 'in'
    folder.mkdir()
    for path in images:
        (folder / path.name).symlink_to(path)
    out = tmp_path / 'out'
    found = find(
        str(folder),
        vocabulary=['cat', 'car'],
        out_dir=str(out),
        no_save_pred=False)
    assert len(found['predictions']) == 3
    written = {path.name for path in out.rglob('*') if path.is_file()}
    assert written == {p.name
                       for p in images} | {f'{p.stem}.json'
                                           for p in images}
    first = json.loads((out / 'preds' / f'{images[0].stem}.json').read_text())
    assert first in found['predictions']


def test_a_wrapped_checkpoint_is_the_same_detector(base, find, images,
                                                   tmp_path):
    weights = torch.load(base[1], weights_only=True)
    wrapped = tmp_path / 'wrapped.pth'
    torch.save(
        dict(
            state_dict={
                f'detector.{name}': weight
                for name, weight in weights['state_dict'].items()
            },
            meta=dict(cfg=Config.fromfile(base[0]).pretty_text)), wrapped)
    expected = find(str(images[0]))
    clim = base[0].replace('boxes', 'captions-tags_clim')
    for config in (base[0], clim, None):
        other = CLIMInferencer(
            config, str(wrapped), device='cpu', show_progress=False)
        assert other(str(images[0])) == expected


def test_weights_of_something_else_are_refused(base, tmp_path):
    torch.save(dict(state_dict=dict(x=torch.zeros(1))), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r"none of \['x'\]"):
        CLIMInferencer(base[0], str(tmp_path / 'x.pth'), device='cpu')
    with pytest.raises(ValueError, match='holds no config'):
        CLIMInferencer(weights=str(tmp_path / 'x.pth'), device='cpu')


@pytest.mark.parametrize('names, message', [
    (['cat', 'cat'], r"given twice: \['cat'\]"),
    (['cat', ' '], 'non-empty'),
    ([], 'at least one'),
])
def test_names_that_are_no_vocabulary(find, images, names, message):
    with pytest.raises(ValueError, match=message):
        find(str(images[0]), vocabulary=names)
    # The detector still has its own.
    assert find(str(images[0]))['predictions'][0]['names']


def test_a_video(find, images, tmp_path):
    frames = [cv2.resize(cv2.imread(str(path)), (96, 64)) for path in images]
    # Bluish.
    frames = [np.uint8(frame * (1, .5, .2)) for frame in frames]
    video = cv2.VideoWriter(
        str(tmp_path / 'in.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 5, (96, 64))
    for frame in frames:
        video.write(frame)
    video.release()
    found = find.video(
        tmp_path / 'in.avi', tmp_path / 'out.mp4', vocabulary=['cat', 'car'])
    assert len(found) == 3
    drawn = cv2.VideoCapture(str(tmp_path / 'out.mp4'))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    blue, _, red = drawn.read()[1].mean((0, 1))
    assert blue > 2 * red
    assert {p.name for p in tmp_path.iterdir()} == {'in.avi', 'out.mp4'}
    (tmp_path / 'no.avi').write_bytes(b'nothing')
    with pytest.raises(ValueError, match='no video'):
        find.video(tmp_path / 'no.avi')


def test_a_detector_without_texts(repository):
    init_default_scope('mmdet')
    cfg = get_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')
    cfg.model.backbone.init_cfg = None
    with pytest.raises(TypeError, match='no part of RetinaNet classifies'):
        set_vocabulary(MODELS.build(cfg.model), ['cat'])


def test_names_in_one_string():
    assert parse_names('cat . traffic light .\ndog') == [
        'cat', 'traffic light', 'dog'
    ]
    assert parse_names('cat') == ['cat']
    with pytest.raises(ValueError, match="separated by ' . '"):
        parse_names(' . ')


def test_the_tool(run_tool, base, images, tmp_path):
    names = tmp_path / 'names.txt'
    names.write_text('cat\nfire truck\n')
    code, log = run_tool('infer.py', images[0], '--config', base[0],
                         '--checkpoint', base[1], '--vocabulary', names,
                         '--out-dir', tmp_path / 'out', '--device', 'cpu')
    assert code == 0, log
    written = json.loads(
        (tmp_path / 'out' / 'preds' / f'{images[0].stem}.json').read_text())
    assert set(written['names']) <= {'cat', 'fire truck'}
    assert (tmp_path / 'out' / 'vis' / images[0].name).is_file()
    code, log = run_tool('infer.py', tmp_path / 'no.jpg', '--checkpoint',
                         base[1])
    assert code and 'no.jpg does not exist' in log
