# Licensed under the Apache License, Version 2.0.
import json

import pytest
from pycocotools.coco import COCO

from mmdet_clim.apis.found_files import coco_of, write_found

CAT = dict(name='cat', score=.5, bbox=[1., 2., 4., 6.5])
DOG = dict(name='a dog', score=.123456, bbox=[0., 0., 10.006, 1.])


def test_images_and_a_video(tmp_path):
    image = dict(width=10, height=8, boxes=[CAT, DOG])
    empty = dict(width=10, height=8, boxes=[])
    entries = [('ä.jpg', image), ('v.mp4', [empty, image]), ('b.png', empty)]
    plain, coco = write_found(tmp_path, entries, ['a dog', 'cat'])
    assert json.loads(plain.read_text('utf-8')) == [
        dict(file='ä.jpg', **image),
        dict(file='v.mp4', frames=[empty, image]),
        dict(file='b.png', **empty)
    ]
    # As a reader of COCO has it.
    read = COCO(str(coco))
    images = read.loadImgs(read.getImgIds())
    assert [i['file_name']
            for i in images] == ['ä.jpg', 'v.mp4#0', 'v.mp4#1', 'b.png']
    of_first = read.loadAnns(read.getAnnIds(imgIds=[images[0]['id']]))
    assert [a['bbox'] for a in of_first] == [[1, 2, 3, 4.5], [0, 0, 10.01, 1]]
    assert [a['area'] for a in of_first] == [13.5, 10.01]
    assert [a['score'] for a in of_first] == [.5, .1235]
    names = [read.loadCats([a['category_id']])[0]['name'] for a in of_first]
    assert names == ['cat', 'a dog']
    assert [len(read.getAnnIds(imgIds=[i['id']]))
            for i in images] == [2, 0, 2, 0]


def test_nothing_found():
    assert coco_of([], ['cat']) == dict(
        images=[], categories=[dict(id=1, name='cat')], annotations=[])
    with pytest.raises(KeyError):
        coco_of([('a', dict(width=1, height=1, boxes=[CAT]))], ['dog'])
