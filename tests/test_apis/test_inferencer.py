# Licensed under the Apache License, Version 2.0.
import json
import os
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from PIL import ExifTags, Image

from mmdet_clim.apis import CLIMInferencer, parse_names, set_vocabulary
from mmdet_clim.apis import inferencer as inferencer_module
from mmdet_clim.registry import MODELS

sys.path.insert(0, str(Path(__file__).parents[2] / 'tools'))
from infer import main as infer  # noqa: E402  isort: skip

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
    with pytest.raises(ValueError, match='together with a vocabulary'):
        find(paths, texts='cat', vocabulary=['dog'])


def test_an_image_in_memory_is_its_file(find, images):
    from_file = find(str(images[0]), return_vis=True)
    from_memory = find(cv2.imread(str(images[0])), return_vis=True)
    assert from_file['predictions'][0].pop('img_path') == str(images[0])
    assert from_file['predictions'] == from_memory['predictions']
    height, width = cv2.imread(str(images[0])).shape[:2]
    assert from_memory['predictions'][0]['ori_shape'] == [height, width]
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


def test_a_folder_as_cameras_fill_it(find, images, tmp_path, caplog):
    # MMEngine's loggers hand nothing on to the root.
    MMLogger.get_current_instance().addHandler(caplog.handler)
    image = Image.open(images[0])
    image.save(tmp_path / 'DSC_2.JPG')
    image.convert('L').save(tmp_path / 'b.png')
    image.convert('RGBA').save(tmp_path / 'ä b.PNG')
    # As some browsers save photographs; OpenCV writes no file of this name.
    (tmp_path / 'c.jfif').write_bytes(images[0].read_bytes())
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    image.resize((60, 40)).save(tmp_path / 'a.jpg', exif=turned)
    (tmp_path / 'cut.jpg').write_bytes(images[0].read_bytes()[:500])
    (tmp_path / 'empty.jpg').touch()
    (tmp_path / 'notes.txt').touch()
    (tmp_path / 'more').mkdir()
    found = find(
        tmp_path,
        vocabulary=['cat'],
        batch_size=3,
        out_dir=str(tmp_path / 'out'),
        no_save_pred=False)['predictions']
    assert [Path(of['img_path']).name for of in found
            ] == ['DSC_2.JPG', 'a.jpg', 'b.png', 'c.jfif', 'ä b.PNG']
    assert found[1]['ori_shape'] == [60, 40]
    written = sorted(p.stem for p in (tmp_path / 'out/preds').iterdir())
    assert written == ['DSC_2', 'a', 'b', 'c', 'ä b']
    assert {p.name
            for p in (tmp_path / 'out/vis').iterdir()
            } == {'DSC_2.JPG', 'a.jpg', 'b.png', 'c.jfif.jpg', 'ä b.PNG'}
    for name in ('cut.jpg', 'empty.jpg'):
        assert f'{name} cannot be read' in caplog.text


def test_images_in_memory_are_written_by_their_number(find, images, tmp_path):
    image = cv2.imread(str(images[0]))
    find([image, image],
         vocabulary=['cat'],
         out_dir=str(tmp_path),
         no_save_pred=False)
    assert sorted(p.name for p in (tmp_path / 'preds').iterdir()) == [
        '0.json', '1.json'
    ]


@pytest.mark.parametrize('shape, dtype', [((8, 9), np.uint8),
                                          ((8, 9, 4), np.uint8),
                                          ((8, 9, 3), np.float32)])
def test_arrays_that_are_no_images(find, shape, dtype):
    with pytest.raises(ValueError, match=r'expected images \(H, W, 3\)'):
        find(np.zeros(shape, dtype))


def test_files_that_are_no_images(find, images, tmp_path):
    (tmp_path / 'cut.jpg').write_bytes(images[0].read_bytes()[:500])
    with pytest.raises(ValueError, match='cut.jpg cannot be read'):
        find([images[0], tmp_path / 'cut.jpg'])
    # Its other side would have less than half of a pixel.
    with pytest.raises(ValueError, match=r'\(1, 2000, 3\) cannot be read'):
        find(np.zeros((1, 2000, 3), np.uint8))
    with pytest.raises(FileNotFoundError, match='no.jpg'):
        find(tmp_path / 'no.jpg')
    (tmp_path / 'none').mkdir()
    with pytest.raises(ValueError, match='none has no image'):
        find(tmp_path / 'none')
    with pytest.raises(ValueError, match='batch_size: expected at least 1'):
        find(images[0], batch_size=0)
    with pytest.raises(ValueError, match='files of different names'):
        find(['a/x.jpg', 'b/x.png'], out_dir=str(tmp_path))


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


def test_random_weights_are_told(base, caplog):
    MMLogger.get_current_instance().addHandler(caplog.handler)
    CLIMInferencer(base[0], device='cpu', show_progress=False)
    assert 'weights: expected a checkpoint' in caplog.text


def test_weights_of_something_else_are_refused(base, tmp_path):
    torch.save(dict(state_dict=dict(x=torch.zeros(1))), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=r"none of \['x'\]"):
        CLIMInferencer(base[0], str(tmp_path / 'x.pth'), device='cpu')
    with pytest.raises(ValueError, match='contains no config'):
        CLIMInferencer(weights=str(tmp_path / 'x.pth'), device='cpu')


@pytest.mark.parametrize('names, message', [
    (['cat', 'cat'], r"given twice: \['cat'\]"),
    (['cat', ' cat'], r"given twice: \['cat'\]"),
    (['cat', ' '], 'non-empty'),
    ([], 'at least one'),
])
def test_names_that_are_no_vocabulary(find, images, names, message):
    with pytest.raises(ValueError, match=message):
        find(str(images[0]), vocabulary=names)
    # The detector still has its own.
    assert find(str(images[0]))['predictions'][0]['names']


def test_names_in_a_file(find, images, tmp_path):
    names = tmp_path / 'names.txt'
    # As Windows' editor writes it.
    names.write_bytes(b'\xef\xbb\xbfcat\r\n\r\n fire truck\r\n')
    find.set_vocabulary(names)
    assert find.model.dataset_meta['classes'] == ('cat', 'fire truck')
    names.write_bytes(b'caf\xe9')
    with pytest.raises(ValueError, match='names.txt: line 1: expected text'):
        find.set_vocabulary(str(names))
    with pytest.raises(FileNotFoundError, match='no.txt does not exist'):
        find(images[0], vocabulary='no.txt')
    assert find.model.dataset_meta['classes'] == ('cat', 'fire truck')
    find(str(images[0]), vocabulary='cat. dog.')
    assert find.model.dataset_meta['classes'] == ('cat', 'dog')


def test_a_video(find, images, tmp_path, monkeypatch):
    frames = [cv2.resize(cv2.imread(str(path)), (96, 64)) for path in images]
    # Bluish.
    frames = [np.uint8(frame * (1, .5, .2)) for frame in frames]
    video = cv2.VideoWriter(
        str(tmp_path / 'in.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 5, (96, 64))
    for frame in frames:
        video.write(frame)
    video.release()
    bars = []

    def track(items, title, total):
        bars.append(total)
        return items

    monkeypatch.setattr(inferencer_module, 'track', track)
    monkeypatch.setattr(find, '_draws_bar', True)
    found = find.video(
        tmp_path / 'in.avi', tmp_path / 'out.mp4', vocabulary=['cat', 'car'])
    assert len(found) == 3
    # A bar of the video, and none of each frame.
    assert bars == [3]
    drawn = cv2.VideoCapture(str(tmp_path / 'out.mp4'))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    blue, _, red = drawn.read()[1].mean((0, 1))
    assert blue > 2 * red
    assert {p.name for p in tmp_path.iterdir()} == {'in.avi', 'out.mp4'}
    (tmp_path / 'no.avi').write_bytes(b'nothing')
    with pytest.raises(ValueError, match='not a video'):
        find.video(tmp_path / 'no.avi')


@pytest.mark.parametrize('told', [0., float('nan'), -1.])
def test_a_video_that_tells_no_speed(tmp_path, told):
    frame = np.zeros((64, 96, 3), np.uint8)
    video = inferencer_module.VideoFile(tmp_path / 'out.mp4', told, frame)
    video.write(frame)
    video.finish()
    assert cv2.VideoCapture(str(tmp_path / 'out.mp4')).get(
        cv2.CAP_PROP_FPS) == pytest.approx(25)


@pytest.mark.parametrize('cut, least, most', [(.5, 1, 11), (0, 0, 0)])
def test_a_broken_video(find, tmp_path, caplog, cut, least, most):
    """What can be read is told beside what the header says."""
    path = tmp_path / 'in.avi'
    video = cv2.VideoWriter(
        str(path), cv2.VideoWriter_fourcc(*'MJPG'), 5, (96, 64))
    for number in range(12):
        video.write(np.full((64, 96, 3), 20 * number, np.uint8))
    video.release()
    data = path.read_bytes()
    movie = data.index(b'movi') + 4
    kept = movie + int(cut * (len(data) - movie))
    path.write_bytes(data[:kept] + bytes(len(data) - kept))
    if not most:
        with pytest.raises(ValueError, match='none of its'):
            find.video(path)
        return
    MMLogger.get_current_instance().addHandler(caplog.handler)
    found = find.video(path)
    assert least <= len(found) <= most
    assert f'{len(found)} of 12 frames' in caplog.text


def test_a_pipe_is_no_video(find, tmp_path):
    os.mkfifo(tmp_path / 'in.avi')
    with pytest.raises(OSError, match='expected a file, got a pipe'):
        find.video(tmp_path / 'in.avi')


def test_an_empty_config_does_not_run_the_one_of_the_checkpoint(tmp_path):
    trace, path = tmp_path / 'trace', tmp_path / 'model.pth'
    text = f'open({str(trace)!r}, "w")\nmodel = dict(type="mmdet.RPN")\n'
    torch.save(dict(state_dict={}, meta=dict(cfg=text)), path)
    (tmp_path / 'empty.py').touch()
    (tmp_path / 'half.py').write_text('model = dict(type="mmdet.RPN")\n')
    for config, missing in ((Config(), 'model, test_dataloader'),
                            (tmp_path / 'empty.py', 'model, test_dataloader'),
                            (tmp_path / 'half.py', 'test_dataloader')):
        with pytest.raises(KeyError, match=f'got no {missing}'):
            CLIMInferencer(config, str(path), device='cpu')
    assert not trace.exists()


def test_the_config_of_a_checkpoint_is_data(base, images, tmp_path):
    """What it would run is not run; as data, it builds the same detector."""
    checkpoint = torch.load(base[1], weights_only=True)
    text = Config.fromfile(base[0]).pretty_text
    path, trace = tmp_path / 'model.pth', tmp_path / 'trace'

    def with_config(text):
        checkpoint['meta'] = dict(checkpoint.get('meta', {}), cfg=text)
        torch.save(checkpoint, path)
        return CLIMInferencer(
            weights=str(path), device='cpu', show_progress=False)

    found = with_config(text)(str(images[0]))['predictions'][0]
    expected = CLIMInferencer(
        *base, device='cpu',
        show_progress=False)(str(images[0]))['predictions'][0]
    assert found['names'] == expected['names']
    np.testing.assert_allclose(found['scores'], expected['scores'])
    command = f'touch {trace}'
    for attack in (
            f'x = __import__("os").system({command!r})\n',
            f'model["type"] = "os.system"\nmodel["command"] = {command!r}\n',
            f'model = dict(type="os.system", command={command!r})\n',
            'model = dict(type="TwoStageDetector", backbone=dict('
            f'type="os.system", command={command!r}))\n'):
        with pytest.raises(ValueError, match='--config'):
            with_config(text + '\n' + attack)
    assert not trace.exists()


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


@pytest.fixture
def tuned(base, tmp_path):
    """A checkpoint, and the least scores that a fine-tuning left beside it."""
    folder = tmp_path / 'tuned'
    folder.mkdir()
    (folder / 'detector.pth').symlink_to(base[1])

    def leave(**thresholds):
        (folder / 'thresholds.json').write_text(
            json.dumps({
                name: dict(threshold=value, f1=value, boxes=3)
                for name, value in thresholds.items()
            }))
        return str(folder / 'detector.pth')

    return leave


def test_each_class_has_its_least_score(base, find, images, tuned, tmp_path):
    """Of those beside the checkpoint; what is drawn is worked out by hand."""
    image = str(images[0])
    every = find(image)['predictions'][0]
    best = every['names'][0]
    # A box that scores as much as it has to is drawn.
    limit = dict.fromkeys(every['names'], 1.0)
    limit[best] = every['scores'][0]
    limit.pop(every['names'][-1], None)  # of no file: 0.3
    limit[f' {best.upper()} '] = limit.pop(best)
    checkpoint = tuned(**limit, unknown=None)
    own = CLIMInferencer(
        base[0], checkpoint, device='cpu', show_progress=False)
    found = own(image, return_vis=True)
    assert found['predictions'][0] == every
    wanted = [
        i for i, (name,
                  score) in enumerate(zip(every['names'], every['scores']))
        if score >= limit.get(f' {name.upper()} ', limit.get(name, .3))
    ]
    assert 0 in wanted and len(wanted) < sum(s >= .01 for s in every['scores'])
    shown = own(image, return_datasamples=True)['predictions'][0]
    shown.pred_instances = shown.pred_instances[wanted]
    own.visualizer.add_datasample(
        'by hand',
        cv2.imread(image)[..., ::-1],
        shown,
        draw_gt=False,
        pred_score_thr=0)
    np.testing.assert_array_equal(found['visualization'][0],
                                  own.visualizer.get_image())
    # A score that is given counts for all classes.
    for score in (.01, .5):
        np.testing.assert_array_equal(
            own(image, return_vis=True, pred_score_thr=score)['visualization'],
            find(image, return_vis=True,
                 pred_score_thr=score)['visualization'])


def drawn(checkpoint, base, image, out, *options):
    """The picture of tools/infer.py."""
    infer([
        image, '--config', base[0], '--checkpoint', checkpoint, '--out-dir',
        str(out), '--device', 'cpu', *options
    ])
    return cv2.imread(str(next((out / 'vis').iterdir())))


def test_the_tool_takes_the_least_scores(base, find, images, tuned, tmp_path):
    image = str(images[0])
    names = set(find(image)['predictions'][0]['names'])
    with_none = drawn(
        tuned(**dict.fromkeys(names, 1.0)), base, image, tmp_path / 'none')
    # Not the image itself: matplotlib before 3.11 draws it half a pixel off.
    np.testing.assert_array_equal(
        with_none,
        drawn(base[1], base, image, tmp_path / 'above', '--score-thr', '1'))
    plain = drawn(base[1], base, image, tmp_path / 'plain')
    assert np.abs(plain.astype(int) - with_none).max() > 60
    given = drawn(
        str(tuned(cat=7)), base, image, tmp_path / 'given', '--score-thr',
        '0.3')
    np.testing.assert_array_equal(given, plain)


@pytest.mark.parametrize('content, message', [
    ('[]', 'expected an object of class names'),
    ('{"cat": 0.5}', 'expected an object of class names'),
    ('{"cat": {}}', 'expected an object of class names'),
    ('{"cat": {"threshold": 1.5}}', "'cat': threshold is 1.5, expected null"),
    ('{"cat": {"threshold": NaN}}', "'cat': threshold is nan, expected null"),
    ('{"cat": {"threshold": "1"}}', "'cat': threshold is '1', expected null"),
    ('{"cat": {"threshold": true}}', "'cat': threshold is True, expected"),
    ('{"cat": {"threshold": 1}, "Cat": {"threshold": 0}}', 'differ in more'),
    ('{"cat": ', 'not valid JSON'),
])
def test_least_scores_that_are_none(base, tmp_path, content, message):
    (tmp_path / 'thresholds.json').write_text(content)
    with pytest.raises(ValueError, match='thresholds.json.*' + message):
        CLIMInferencer(base[0], str(tmp_path / 'detector.pth'), device='cpu')


def test_the_tool(run_tool, base, images, tmp_path, warnings_in):
    names = tmp_path / 'names.txt'
    names.write_text('cat\nfire truck\n')
    code, log = run_tool('infer.py', images[0], '--config', base[0],
                         '--checkpoint', base[1], '--vocabulary', names,
                         '--out-dir', tmp_path / 'out', '--device', 'cpu')
    assert code == 0, log
    assert warnings_in(log) == []
    written = json.loads(
        (tmp_path / 'out' / 'preds' / f'{images[0].stem}.json').read_text())
    assert set(written['names']) <= {'cat', 'fire truck'}
    assert (tmp_path / 'out' / 'vis' / images[0].name).is_file()
    again = tmp_path / images[0].name
    again.symlink_to(images[0])
    for wrong, message in (
        ((tmp_path / 'no.jpg', ), 'no.jpg does not exist'),
        ((images[0], again), 'expected files of different names'),
        ((images[0], '--custom-entities'), 'requires --texts'),
        ((images[0], '--batch-size', 0), 'expected at least 1, got 0'),
        ((images[0], '--vocabulary', 'no.txt'), 'no.txt does not exist'),
        ((images[0], '--vocabulary', 'cat', 'Cat'), 'differ in more than'),
    ):
        code, log = run_tool('infer.py', *wrong, '--checkpoint', base[1])
        assert code == 2 and message in log


def test_the_tool_leaves_out_what_is_not_wanted(run_tool, base, images,
                                                tmp_path):
    video = cv2.VideoWriter(
        str(tmp_path / 'in.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 5, (96, 64))
    video.write(cv2.resize(cv2.imread(str(images[0])), (96, 64)))
    video.release()
    for option, kind in (('--no-save-vis', 'preds'), ('--no-save-pred',
                                                      'vis')):
        out = tmp_path / kind
        code, log = run_tool('infer.py', images[0], tmp_path / 'in.avi',
                             '--config', base[0], '--checkpoint', base[1],
                             option, '--out-dir', out, '--device', 'cpu')
        assert code == 0, log
        assert [path.name for path in out.iterdir()] == [kind]
        assert len(list((out / kind).iterdir())) == 2
