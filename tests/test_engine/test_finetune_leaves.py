# Licensed under the Apache License, Version 2.0.
"""Files beside a detector: proposed boxes, safetensors, reports."""
import json
import os
import re
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO

from mmdet_clim.datasets.box_formats import read_boxes
from mmdet_clim.datasets.preparation.own_tags import boxed_images
from mmdet_clim.datasets.vocabulary import build_vocabulary
from mmdet_clim.engine.checkpoints import read_checkpoint
from mmdet_clim.engine.finetune_labels import propose_labels
from mmdet_clim.engine.finetune_report import (
    Evaluated,
    curve_section,
    data_section,
    evaluation_sections,
    kept_section,
    picture_section,
)
from mmdet_clim.engine.safetensors_files import save_safetensors
from mmdet_clim.evaluation.error_types import confusions
from mmdet_clim.visualization.report import Section, write_report

NAMES = ['cat', 'dog', 'bus']
CAPTIONED = dict(
    categories=[dict(id=7, name='cat'),
                dict(id=9, name='dog')],
    images=[
        dict(file_name='a.png', captions=['a cat'], pos_category_ids=[7]),
        dict(
            file_name='b/c.png',
            captions=['a cat', 'a dog'],
            pos_category_ids=[7, 9]),
        dict(file_name='gone.png', captions=['a cat'], pos_category_ids=[7]),
        dict(file_name='d.png', captions=['nothing']),
    ])


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'images' / 'b').mkdir(parents=True)
    for name, size in (('a.png', (40, 30)), ('b/c.png', (20, 50)), ('d.png',
                                                                    (9, 8))):
        Image.new('RGB', size, (90, 90, 90)).save(tmp_path / 'images' / name)
    return tmp_path / 'images'


def find(path):
    """A cat, a dog, a bus, a weak dog, and a dog beyond its image."""
    with Image.open(path) as image:
        width, height = image.size
    return dict(
        ori_shape=[height, width],
        labels=[0, 1, 2, 1, 1],
        scores=[.9, .8, .7, .2, .6],
        bboxes=[[1, 2, 11, 22.004], [-5, 0, 6, 200], [0, 0, 5, 5],
                [0, 0, 5, 5], [60, 60, 70, 70]])


def test_boxes_that_a_caption_names(folder, tmp_path):
    content, counts = propose_labels(CAPTIONED, folder, NAMES, find)
    assert [i['file_name']
            for i in content['images']] == ['a.png', 'b/c.png', 'd.png']
    found = [(a['image_id'], a['category_id'], a['bbox'], a['score'])
             for a in content['annotations']]
    assert found == [(1, 1, [1, 2, 10, 20], .9), (2, 1, [1, 2, 10, 20], .9),
                     (2, 2, [0, 0, 6, 50], .8)]
    assert counts == [
        dict(name='cat', named=2, found=2, boxes=2),
        dict(name='dog', named=1, found=1, boxes=1),
        dict(name='bus', named=0, found=0, boxes=0)
    ]
    # Hundredths of pixels, without the noise of floats.
    edges = dict(
        find(str(folder / 'a.png')),
        labels=[0],
        scores=[.9],
        bboxes=[[7.29, 8.22, 18.77, 21.86]])
    fine, _ = propose_labels(CAPTIONED, folder, NAMES, lambda path: edges)
    assert fine['annotations'][0]['bbox'] == [7.29, 8.22, 11.48, 13.64]
    # Other programs read it, and so does training.
    file = tmp_path / 'labels.json'
    file.write_text(json.dumps(content))
    api = COCO(str(file))
    assert len(api.getAnnIds(imgIds=[2])) == 2
    assert api.loadCats([3])[0]['name'] == 'bus'
    again = read_boxes(file, folder)
    assert again.notes == '' and len(again.content['annotations']) == 3
    for images, found in ((folder, ['a.png',
                                    'b/c.png']), (folder / 'b', ['c.png']),
                          (tmp_path, ['images/a.png', 'images/b/c.png'])):
        assert boxed_images(again.content, folder, images, NAMES[:1]) == [
            dict(file_name=name, caption='cat', tags=['cat']) for name in found
        ]
    for images, name in ((folder, 'zebra'), (tmp_path / 'other', 'cat')):
        with pytest.raises(ValueError, match='--tags boxes: expected boxes'):
            boxed_images(again.content, folder, images, [name])


def as_fiftyone(content, folder):
    """What FiftyOne 1.22's ``COCODetectionDatasetImporter`` makes of a file.

    Of each image, by its path: its size, and of each detection the label, the
    confidence, the box as shares of the image and what else it is told.
    """
    paths = {
        os.path.normpath(path.relative_to(folder)): path
        for path in folder.rglob('*') if path.is_file()
    }
    classes = {c['id']: c['name'] for c in content['categories']}
    by_name = {c['name']: c for c in content['categories']}
    images = {image['id']: image for image in content['images']}
    # It would drop those that are there twice without a word.
    assert len(classes) == len(by_name) == len(content['categories'])
    assert len(images) == len(content['images'])
    assert {a['image_id'] for a in content['annotations']} <= set(images)
    samples = {}
    for number in sorted(images):
        image = images[number]
        width, height = image['width'], image['height']
        detections = []
        for box in content['annotations']:
            if box['image_id'] == number:
                # Other keys become attributes of its detections.
                assert set(box) == {
                    'id', 'image_id', 'category_id', 'bbox', 'segmentation',
                    'score', 'area', 'iscrowd'
                } and not box['segmentation']
                x, y, w, h = box['bbox']
                label = classes[box['category_id']]
                detections.append(
                    (label, box['score'],
                     [x / width, y / height, w / width,
                      h / height], by_name[label].get('supercategory')))
        samples[paths[os.path.normpath(image['file_name'])]] = ((width,
                                                                 height),
                                                                detections)
    return samples


def test_fiftyone_reads_the_proposed_boxes(folder, tmp_path):
    content, _ = propose_labels(CAPTIONED, folder, NAMES, find)
    (tmp_path / 'labels.json').write_text(json.dumps(content))
    read = as_fiftyone(
        json.loads((tmp_path / 'labels.json').read_text()), folder)
    assert read == {
        folder / 'a.png':
        ((40, 30), [('cat', .9, [1 / 40, 2 / 30, 10 / 40, 20 / 30], '')]),
        folder / 'b/c.png':
        ((20, 50), [('cat', .9, [1 / 20, 2 / 50, 10 / 20, 20 / 50], ''),
                    ('dog', .8, [0, 0, 6 / 20, 1], '')]),
        folder / 'd.png': ((9, 8), []),
    }


def test_no_boxes_and_no_tags(folder):
    content, counts = propose_labels(
        dict(categories=[], images=[]), folder, NAMES, find)
    assert content['annotations'] == content['images'] == []
    assert len(content['categories']) == len(counts) == 3
    content, _ = propose_labels(CAPTIONED, folder, NAMES, find, least=.95)
    assert content['annotations'] == [] and len(content['images']) == 3


def test_safetensors(tmp_path):
    weight = torch.arange(6.).reshape(2, 3)
    checkpoint = dict(
        # Shared, not contiguous, and of other types.
        state_dict=dict(
            a=weight,
            b=weight,
            c=weight.t(),
            d=torch.tensor(3),
            e=weight.half()),
        meta=dict(
            cfg='model = dict()\n',
            dataset_meta=dict(classes=('cat', 'größe')),
            epoch=3))
    path = tmp_path / 'detector.safetensors'
    save_safetensors(checkpoint, path)
    read = read_checkpoint(path)
    assert read['meta'] == dict(
        cfg='model = dict()\n', dataset_meta=dict(classes=['cat', 'größe']))
    for name, value in checkpoint['state_dict'].items():
        assert read['state_dict'][name].equal(value)
        assert read['state_dict'][name].dtype == value.dtype
    for content in (b'', b'no', path.read_bytes()[:50],
                    b'\xff' * 8 + b'{' * 9):
        path.write_bytes(content)
        with pytest.raises(ValueError, match='expected safetensors'):
            read_checkpoint(path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def boxes(*rows):
    return [
        dict(
            id=number,
            image_id=image,
            category_id=category,
            bbox=box,
            area=box[2] * box[3],
            iscrowd=0,
            score=score)
        for number, (image, category, box, score) in enumerate(rows, 1)
    ]


LEFT, RIGHT, NOWHERE = [0, 0, 10, 10], [20, 0, 10, 10], [30, 20, 9, 9]
OBJECTS = boxes((1, 1, LEFT, 1), (1, 2, RIGHT, 1), (2, 1, LEFT, 1))


def test_confusions_by_hand():
    """Three cats, of which as many first detections count as objects."""
    found = boxes((1, 2, LEFT, .9), (1, 1, RIGHT, .8), (2, 1, LEFT, .7),
                  (1, 1, NOWHERE, .6), (2, 2, LEFT, .5))
    # The second dog and the third cat are beyond the numbers of objects.
    assert confusions(OBJECTS, found) == Counter({(1, 2): 1, (2, 1): 1})
    assert confusions(OBJECTS, []) == confusions([], found) == Counter()


def parts(sections, tmp_path):
    """The text of a report, without its pictures, and these."""
    sections = list(sections)
    write_report(tmp_path / 'report.html', 'A <title>', sections)
    page = (tmp_path / 'report.html').read_text()
    pictures = re.findall('base64,([A-Za-z0-9+/=]+)', page)
    assert len(pictures) == sum(s.picture is not None for s in sections)
    return page, len(pictures)


def test_a_report_of_boxes(folder, tmp_path):
    content = dict(
        images=[
            dict(id=1, file_name='a.png'),
            dict(id=2, file_name='b/c.png'),
            dict(id=3, file_name='gone.png')
        ],
        categories=[
            dict(id=1, name='cat'),
            dict(id=2, name='<b>dog'),
            dict(id=5, name='other')
        ],
        annotations=OBJECTS + boxes((1, 5, NOWHERE, 1)))
    detections = dict(
        before=boxes((1, 2, LEFT, .9)),
        after=boxes((1, 1, LEFT, .9), (2, 1, LEFT, .4)))
    metrics = {
        which: {
            'ov_coco/ap50_cat': cat,
            'ov_coco/ap50_<b>dog': dog,
            'ov_coco/base_ap50': cat,
            'ov_coco/novel_ap50': dog,
            'ov_coco/all_ap50': (cat + dog) / 2
        }
        for which, cat, dog in (('before', 0., .25), ('after', 1., 0.))
    }
    metrics['before']['ov_coco/novel_ap50'] = None
    vocabulary = build_vocabulary(
        dict(names=['cat', '<b>dog'], base_names=['cat']))
    page, pictures = parts(
        evaluation_sections(
            Evaluated(content, folder, metrics, detections), vocabulary, 0),
        tmp_path)
    assert pictures == 2
    assert '<b>' not in page and '&lt;b&gt;dog' in page
    cells = re.findall('<td>(.*?)</td>', page)
    at = cells.index('cat')
    assert cells[at:at + 6] == ['cat', 'base', '2', '0.0', '100.0', '+100.0']
    at = cells.index('mean of novel classes')
    assert cells[at + 3:at + 6] == ['-', '0.0', '-']
    # Of the after, both cats are correct.
    at = cells.index('after')
    assert cells[at + 1] == '2'
    assert ['cat', '&lt;b&gt;dog', '1', '0'] == cells[-4:]


def test_a_report_of_words_that_were_kept(tmp_path):
    kept = dict(
        old_words=['cat', 'dog'],
        old_ap50=dict(before=.5, after=None),
        agreement=dict(before=8, after=9, found_again=.75),
        not_named=dict(before=5, after=3))
    Image.new('RGB', (4, 3)).save(tmp_path / 'kept.png')
    for name, pictures in (('kept.png', 1), ('none.png', 0)):
        page, count = parts([kept_section(kept, tmp_path / name)], tmp_path)
        assert count == pictures
        assert re.findall('<td>(.*?)</td>', page) == [
            'AP50 of previous classes', '50.0', '-',
            'previous classes, detections in your images', '8', '9',
            'of these, found again', '', '75.0',
            'your classes, detections in images whose captions do not name '
            'them', '5', '3'
        ]


def test_a_report_without_boxes(folder, tmp_path):
    vocabulary = build_vocabulary(NAMES)
    page, pictures = parts([
        picture_section(CAPTIONED, folder, vocabulary,
                        dict(before=find, after=find), .3, 0),
        curve_section({
            'loss': [(1, 2.), (2, 1.)],
            'mosaic.tag.loss': [(1, 2.), (2, 1.)]
        }),
        curve_section({}),
        data_section(
            dict(
                inputs='captions.csv',
                files={
                    'captions.json':
                    dict(
                        images=3,
                        tags=2,
                        dropped={'images without text': 4},
                        tags_per_class=dict(cat=2, dog=0))
                }), ['--boxes: dropped 2 boxes without extent']),
        Section('Picture', image=np.zeros((3, 4, 3), np.uint8))
    ], tmp_path)
    assert pictures == 3
    assert 'There is no log.' in page
    assert 'images without text' in page and '--boxes: dropped 2' in page
    assert '1 of 2 classes have no tags: dog' in page
    assert [f.name for f in tmp_path.iterdir()
            if f.is_file()] == ['report.html']
    empty = picture_section(
        dict(images=[dict(file_name='gone.png')]), folder, vocabulary,
        dict(before=find), .3, 0)
    assert empty.texts == ['No image can be read.']
