# Licensed under the Apache License, Version 2.0.
import cv2
import numpy as np
import pytest
import torch
from mmengine.hub import get_config
from mmengine.registry import init_default_scope

from mmdet_clim.apis import CLIMInferencer, WordFinder, word_finder
from mmdet_clim.apis.word_finder import read_words
from mmdet_clim.models.text_encoders import encode_classes
from mmdet_clim.registry import MODELS
from mmdet_clim.visualization.detections import BASE_COLOUR

CONFIGS = 'configs/openmoji'


@pytest.fixture(scope='module')
def inferencer(repository, small_detector):
    """Of the shipped detector."""
    return CLIMInferencer(
        str(small_detector('faster-rcnn_r18-c4_256_boxes')),
        str(repository / CONFIGS / 'faster-rcnn_r18-c4_256_base.pth'),
        device='cpu',
        show_progress=False)


@pytest.fixture(scope='module')
def find(inferencer):
    return WordFinder(inferencer)


@pytest.fixture(scope='module')
def image(openmoji_root):
    return sorted((openmoji_root / 'val2017').glob('*.jpg'))[0]


def test_what_is_found(find, inferencer, image):
    names = ['car', 'bear', 'person']
    expected = inferencer(str(image), vocabulary=names)['predictions'][0]
    best = expected['scores'][0]
    found = find(image, 'car, bear\n\n person,', 0)
    assert len(found.rows) == len(expected['names']) > 0
    name, score, *box = found.rows[0]
    assert name == expected['names'][0] and score == round(best, 3)
    np.testing.assert_allclose(box, expected['bboxes'][0], atol=.051)
    # The longer side has 640 pixels, and boxes are drawn in one colour.
    height, width = cv2.imread(str(image)).shape[:2]
    scale = 640 / max(height, width)
    shape = (round(scale * height), round(scale * width), 3)
    assert found.picture.shape == shape
    assert (found.picture == BASE_COLOUR).all(-1).sum() > 640
    assert [text.split(':')[0] for _, text in found.responses] == names
    for picture, _ in found.responses:
        assert picture.shape == shape and picture.dtype == np.uint8


def test_the_threshold(find, image):
    everything = find(image, 'car, bear', 0).rows
    scores = [row[1] for row in everything]
    least = (scores[0] + scores[1]) / 2
    assert find(image, 'car, bear', least).rows == everything[:1]
    nothing = find(image, 'car, bear', 1)
    assert nothing.rows == []
    assert not (nothing.picture == BASE_COLOUR).all(-1).any()
    assert nothing.message == '0 boxes; none of car, bear.'
    # The maps know no threshold.
    assert len(nothing.responses) == 2


def test_one_box_and_one_name(find, image):
    scores = [row[1] for row in find(image, 'car', 0).rows]
    least = (scores[0] + scores[1]) / 2
    assert find(image, 'car', least).message == '1 box.'


def test_responses_are_cosines_of_what_boxes_are_classified_by(
        inferencer, image):
    inferencer.set_vocabulary(['car', 'bear'])
    maps = inferencer.responses(str(image))
    # The pipeline's scale is 256 pixels; the images have 128.
    height, width = cv2.imread(str(image)).shape[:2]
    assert max(height, width) == 128
    assert maps.shape == (2, 2 * height, 2 * width)
    assert maps.abs().max() <= 1
    head = inferencer.model.roi_head.bbox_head
    # A detector that embeds every region as `bear` answers 1 to it.
    classifier = next(m for m in head.modules()
                      if hasattr(m, 'class_embeddings'))
    encoder = MODELS.build(classifier.text_encoder_cfg)
    texts = encode_classes(encoder, ['car', 'bear'], classifier.templates)
    weight, bias = (p.data.clone() for p in classifier.projection.parameters())
    classifier.projection.weight.data.zero_()
    classifier.projection.bias.data.copy_(texts[1])
    constant = inferencer.responses(str(image))
    classifier.projection.weight.data.copy_(weight)
    classifier.projection.bias.data.copy_(bias)
    expected = (texts @ texts[1])[:, None, None].expand_as(maps)
    torch.testing.assert_close(constant, expected)


def test_an_image_with_odd_sides(find, image, tmp_path):
    odd = cv2.resize(cv2.imread(str(image)), (101, 37))
    cv2.imwrite(str(tmp_path / 'odd.png'), odd)
    found = find(tmp_path / 'odd.png', 'car', 0)
    assert found.picture.shape == found.responses[0][0].shape == (234, 640, 3)


def test_a_thread_of_an_image(find, tmp_path):
    # One whose other side the detector would see as less than half a pixel.
    cv2.imwrite(str(tmp_path / 'thin.png'), np.zeros((1, 1000, 3), np.uint8))
    with pytest.raises(ValueError, match='cannot be read'):
        find(tmp_path / 'thin.png', 'cat', .3)


@pytest.mark.parametrize('words, message', [
    ('cat, dog\ncat', r"given twice: \['cat'\]"),
    ('', 'at least one'),
    (' ,\n, ', 'at least one'),
    (','.join(map(str, range(51))), 'at most 50 class names, got 51'),
])
def test_words_that_are_no_vocabulary(find, image, words, message):
    with pytest.raises(ValueError, match=message):
        find(image, words, .3)


@pytest.mark.parametrize('words, expected', [
    ('cat', dict(cat=.3)),
    ('U.S. mail box, cat\r\ndog', {
        'U.S. mail box': .3,
        'cat': .3,
        'dog': .3
    }),
    ('cat = 0.5, dog', dict(cat=.5, dog=.3)),
    ('cat=1\r\nred dog=.25\ncow', {
        'cat': 1.,
        'red dog': .25,
        'cow': .3
    }),
    ('cat = 0.5 . dog .', dict(cat=.5, dog=.3)),
    ('cat = 0', dict(cat=0.)),
])
def test_words(words, expected):
    found = read_words(words, .3)
    assert found == expected and list(found) == list(expected)


@pytest.mark.parametrize('words, message', [
    ('cat = high', "cat: expected a score threshold from 0 to 1 .*'high'"),
    ('dog, cat = 1.5', "cat: expected .*'1.5'"),
    ('cat =', "cat: expected .*''"),
    ('cat = nan', 'cat: expected'),
    ('cat = 0.5 or so', 'cat: expected'),
    ('cat = dog = 0.5', 'cat: expected'),
    ('cat = 0.5, cat = 0.6', 'given twice'),
    ('= 0.5', 'name 1'),
])
def test_scores_that_are_none(words, message):
    with pytest.raises(ValueError, match=message):
        read_words(words, .3)


def test_a_threshold_for_a_word(find, image):
    everything = find(image, 'car, bear', 0).entry['boxes']
    cars = [box['score'] for box in everything if box['name'] == 'car']
    least = sum(cars[:2]) / 2
    found = find(image, f'car = {least}, bear', 0)
    assert found.entry['boxes'] == [
        box for box in everything if box['name'] == 'bear' or box is next(
            box for box in everything if box['name'] == 'car')
    ]
    height, width = cv2.imread(str(image)).shape[:2]
    assert (found.entry['width'], found.entry['height']) == (width, height)


def test_thresholds_of_a_fine_tuning(find, image, monkeypatch):
    """They go before the slider, and after what stands behind a word."""
    everything = find(image, 'car, bear', 0).rows
    monkeypatch.setattr(find.find, 'thresholds', {'car': 1., 'bear': 0.})
    assert find(image, 'Car, bear',
                .9).rows == [row for row in everything if row[0] == 'bear']
    assert find(image, 'car = 0, bear = 1',
                .9).rows == [row for row in everything if row[0] == 'car']
    assert read_words('cat = 0.5, dog, cow', .3, {'dog': .7}) == dict(
        cat=.5, dog=.7, cow=.3)


def test_two_words(find, inferencer, image):
    compared = find.compare(image, 'car', ' bear ', 0)
    maps = inferencer.responses(str(image))
    assert inferencer.model.dataset_meta['classes'] == ('car', 'bear')
    share = 100 * (maps[0] > maps[1]).float().mean()
    assert f'than bear (cold): {share:.0f} % of the image' in compared.message
    # Hot is red and cold is blue; the other way round the other way round.
    other = find.compare(image, 'bear', 'car', 0)
    gap = cv2.resize((maps[0] - maps[1]).numpy(),
                     compared.difference.shape[1::-1])
    place = np.unravel_index(np.abs(gap).argmax(), gap.shape)
    red, _, blue = np.int64(
        compared.difference[place]) - other.difference[place]
    assert (red - blue) * gap[place] > 0
    boxes = find(image, 'car, bear', 0).rows
    cars = sum(row[0] == 'car' for row in boxes)
    assert compared.message.startswith(
        f'Boxes: {cars} of car, {len(boxes) - cars} of bear.')
    np.testing.assert_array_equal(compared.picture,
                                  find(image, 'car, bear', 0).picture)
    for first, second, message in (('car', 'car', "'car' twice"),
                                   ('car', 'bear, cat', 'expected two to'),
                                   ('', 'car', 'at least one')):
        with pytest.raises(ValueError, match=message):
            find.compare(image, first, second, 0)


def test_a_video(find, image, tmp_path, monkeypatch):
    frame = cv2.imread(str(image))
    video = cv2.VideoWriter(
        str(tmp_path / 'in.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 5,
        frame.shape[1::-1])
    for _ in range(3):
        video.write(frame)
    video.release()
    out = tmp_path / 'out.webm'
    entries = find.video(tmp_path / 'in.avi', 'car = 0, bear = 1', .3, out)
    assert len(entries) == 3
    assert {box['name'] for box in entries[0]['boxes']} == {'car'}
    drawn = cv2.VideoCapture(str(out))
    # VP8, which browsers play; mp4v they do not.
    assert int(drawn.get(
        cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter.fourcc(*'VP80')
    shape = find(image, 'car', 0).picture.shape
    assert sum(drawn.read()[0] for _ in range(9)) == 3
    assert drawn.get(cv2.CAP_PROP_FRAME_WIDTH) == shape[1]
    monkeypatch.setattr(word_finder, 'MAX_FRAMES', 2)
    with pytest.raises(ValueError, match='at most 2 frames'):
        find.video(tmp_path / 'in.avi', 'car', .3, tmp_path / 'b.webm')
    (tmp_path / 'no.avi').write_bytes(b'nothing')
    with pytest.raises(ValueError, match='without a single readable frame'):
        find.video(tmp_path / 'no.avi', 'car', .3, tmp_path / 'c.webm')
    assert {p.name
            for p in tmp_path.iterdir()} == {'in.avi', 'no.avi', 'out.webm'}


def test_images_that_are_none(inferencer, image, tmp_path):
    find = WordFinder(inferencer, max_pixels=128 * 128)
    assert find(image, 'car', .3).responses
    broken = tmp_path / 'broken.jpg'
    broken.write_bytes(image.read_bytes()[:-500])
    (tmp_path / 'text.png').write_text('no image')
    # Of either kind: a large JPEG is not silently decoded smaller.
    for name in ('large.png', 'large.jpg'):
        cv2.imwrite(str(tmp_path / name), np.zeros((129, 128, 3), np.uint8))
    for path, message in ((None, 'image: expected one'), (broken, 'cut short'),
                          (tmp_path / 'text.png', 'not an image'),
                          (tmp_path / 'large.png',
                           '128 x 129 pixels'), (tmp_path / 'large.jpg',
                                                 'at most 0.016384 million')):
        with pytest.raises(ValueError, match=message):
            find(path, 'car', .3)
    assert find(image, 'car', .3).responses


def test_a_detector_without_words(repository, inferencer, image, monkeypatch):
    init_default_scope('mmdet')
    cfg = get_config('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')
    cfg.model.backbone.init_cfg = None
    monkeypatch.setattr(inferencer, 'model', MODELS.build(cfg.model))
    with pytest.raises(TypeError, match='RetinaNet neither classifies'):
        WordFinder(inferencer)
    with pytest.raises(TypeError, match='RetinaNet compares no region'):
        inferencer.responses(str(image))


def test_a_grounding_detector_has_boxes_alone(repository, image):
    config = repository / CONFIGS / 'mm-grounding-dino_r18_160_boxes.py'
    inferencer = CLIMInferencer(str(config), device='cpu', show_progress=False)
    find = WordFinder(inferencer)
    found = find(image, 'cat, traffic light', 0)
    assert {row[0] for row in found.rows} <= {'cat', 'traffic light'}
    assert len(found.rows) > 0 and found.responses == []
    assert 'No response maps: responses: GroundingDINO' in found.message
