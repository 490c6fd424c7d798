# Licensed under the Apache License, Version 2.0.
"""The one check of annotation files: what it repairs and what it refuses."""
import copy
import json
import math

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils

from mmdet_clim.datasets import OVCocoDataset, UnreadableImageError
from mmdet_clim.datasets.coco_annotations import (
    PanopticChecker,
    check_coco,
    read_categories,
    read_coco,
    read_detections,
)


def good():
    """Two images of 100 x 80 pixels with three boxes."""
    return dict(
        images=[
            dict(id=i, file_name=f'{i}.png', width=100, height=80)
            for i in (1, 2)
        ],
        categories=[dict(id=1, name='person'),
                    dict(id=18, name='dog')],
        annotations=[
            dict(
                id=number,
                image_id=image,
                category_id=category,
                bbox=[10, 20, 30, 40],
                area=1200,
                iscrowd=0)
            for number, image, category in ((5, 1, 1), (6, 1, 18), (7, 2, 1))
        ])


def read(tmp_path, content, **kwargs):
    path = tmp_path / 'a.json'
    path.write_text(
        content if isinstance(content, str) else json.dumps(content))
    return read_coco(path, **kwargs)


def test_a_good_file_is_as_it_was(tmp_path, warnings_logged):
    assert read(tmp_path, good(), clip=True) == good()
    assert not warnings_logged


def set_all(key, value):

    def edit(content):
        for entry in content['annotations']:
            entry[key] = value

    return edit


def pop_all(key):

    def edit(content):
        for entry in content['annotations']:
            del entry[key]

    return edit


def texts(content):
    """Every number as text."""
    for image in content['images']:
        image.update({k: str(image[k]) for k in ('id', 'width', 'height')})
    for category in content['categories']:
        category['id'] = str(category['id'])
    for entry in content['annotations']:
        entry.update({
            k: str(entry[k])
            for k in ('id', 'image_id', 'category_id', 'area', 'iscrowd')
        })
        entry['bbox'] = list(map(str, entry['bbox']))


def floats(content):
    for entry in content['annotations']:
        for key in ('id', 'image_id', 'category_id'):
            entry[key] = float(entry[key])


@pytest.mark.parametrize('edit, counted', [
    (pop_all('area'), '3 areas that were missing'),
    (set_all('area', 0), '3 areas that were missing'),
    (set_all('area', -4), '3 areas that were missing'),
    (set_all('area', math.nan), '3 areas that were missing'),
    (set_all('area', None), '3 areas that were missing'),
    (set_all('area', '1200'), '3 areas that were text'),
    (pop_all('iscrowd'), '3 missing iscrowd'),
    (set_all('iscrowd', False), '3 iscrowd that was'),
    (set_all('iscrowd', '0'), '3 iscrowd that was'),
    (lambda c:
     [a.update(image_id=str(a['image_id']))
      for a in c['annotations']], '3 ids that were no integers'),
    (lambda c:
     [a.update(image_id=f'{a["image_id"]:012d}')
      for a in c['annotations']], '3 ids that were no integers'),
    (lambda c: c['images'][0].update(id='1'), '1 ids that were no integers'),
    (lambda c: c['categories'][0].update(name=' person'), '1 class names'),
    (set_all('segmentation', [[1, 2, 3]]), '3 masks that were none'),
    (texts, '3 boxes whose numbers were text'),
    (floats, '9 ids that were no integers'),
])
def test_what_means_the_same_is_repaired_and_counted(tmp_path, warnings_logged,
                                                     edit, counted):
    content = good()
    edit(content)
    assert read(tmp_path, content, clip=True) == good()
    line, = warnings_logged
    assert counted in line and line.startswith(str(tmp_path / 'a.json'))


def test_a_parent_of_the_same_name(tmp_path, warnings_logged):
    """Roboflow makes a parent of all classes, with the name of the set."""
    content = good()
    first = content['categories'][0]
    content['categories'].append(
        dict(id=77, name=first['name'], supercategory=first['name']))
    content['annotations'][1]['category_id'] = 77
    found = read(tmp_path, content)
    assert [c['id'] for c in found['categories']
            ] == [c['id'] for c in good()['categories']]
    assert found['annotations'][1]['category_id'] == first['id']
    assert 'classes with the name of their parent' in warnings_logged[-1]
    assert 77 not in read_categories(tmp_path / 'a.json')
    content['categories'][-1]['supercategory'] = 'none'
    with pytest.raises(ValueError, match="key 'name' is .* no other category"):
        read(tmp_path, content)


def test_missing_ids_are_numbered(tmp_path):
    content = good()
    pop_all('id')(content)
    assert [a['id']
            for a in read(tmp_path, content)['annotations']] == [1, 2, 3]
    content = good()
    del content['annotations'][2]['id']
    assert [a['id']
            for a in read(tmp_path, content)['annotations']] == [5, 6, 7]
    content = good()
    del content['annotations'][0]['id']
    content['annotations'][1]['id'] = 1
    with pytest.raises(ValueError, match='some annotations have no id'):
        read(tmp_path, content)


def bbox(*box):
    return lambda c: c['annotations'][0].update(bbox=list(box))


def entry(key, **values):
    return lambda c: c[key][0].update(values)


def gone(key, name):
    return lambda c: c[key][0].pop(name)


@pytest.mark.parametrize('edit, message', [
    (lambda c: c['annotations'][2].update(id=5),
     r"annotations\[2\]: key 'id' is 5, the same as that of annotations\[0\]"),
    (lambda c: c['annotations'][2].update(id='5'), "key 'id' is 5, the same"),
    (lambda c: c['images'][1].update(id=1), r"images\[1\]: key 'id' is 1"),
    (lambda c: c['images'][1].update(id='01'), r"images\[1\]: key 'id' is 1"),
    (lambda c: c['categories'][1].update(id=1),
     r"categories\[1\]: key 'id' is 1"),
    (lambda c: c['categories'][1].update(name='person'),
     r"categories\[1\]: key 'name' is 'person'"),
    (entry('annotations',
           image_id=9), r"annotations\[0\] \(id 5\): key 'image_id' is 9"),
    (entry('annotations', category_id=9),
     r"annotations\[0\] \(id 5\): key 'category_id' is 9"),
    (bbox(1, 2, 3), r"\(id 5\): key 'bbox' is \[1, 2, 3\]"),
    (bbox(1, 2, 3, math.nan), r"\(id 5\): key 'bbox' is .*nan"),
    (bbox(1, 2, 3, -math.inf), r"\(id 5\): key 'bbox' is .*-inf"),
    (bbox(1, 2, 3, 10**400), r"\(id 5\): key 'bbox' is"),
    (bbox(1, 2, 3, 'wide'), r"\(id 5\): key 'bbox' is .*'wide'"),
    (bbox(1, 2, 3, None), r"\(id 5\): key 'bbox' is .*None"),
    (bbox(1, 2, 3, True), r"\(id 5\): key 'bbox' is .*True"),
    (bbox([1, 2], [3, 4]), r"\(id 5\): key 'bbox' is"),
    (entry('annotations', bbox='1 2 3 4'), r"\(id 5\): key 'bbox' is"),
    (entry('annotations', iscrowd=2), r"\(id 5\): key 'iscrowd' is 2"),
    (entry('annotations', iscrowd='no'), r"\(id 5\): key 'iscrowd' is 'no'"),
    (entry('annotations', id='a'), "key 'id' is 'a', expected an integer"),
    (entry('annotations', id=1.5), "key 'id' is 1.5, expected an integer"),
    (entry('annotations', id=True), "key 'id' is True, expected an integer"),
    (entry('annotations', id=2**64), "key 'id' is .*, expected an integer"),
    (entry('annotations', image_id=[1]), r"key 'image_id' is \[1\]"),
    (gone('annotations', 'bbox'), r"annotations\[0\]: key 'bbox' is missing"),
    (gone('annotations', 'image_id'), "key 'image_id' is missing"),
    (gone('annotations', 'category_id'), "key 'category_id' is missing"),
    (gone('images', 'id'), r"images\[0\]: key 'id' is missing"),
    (gone('images', 'file_name'), r"\(id 1\): key 'file_name' is None"),
    (entry('images', file_name=''), r"\(id 1\): key 'file_name' is ''"),
    (entry('images', file_name=3), r"\(id 1\): key 'file_name' is 3"),
    (entry('images', file_name='\ud83d.jpg'), r"key 'file_name' is"),
    (lambda c: c['images'][1].update(file_name=c['images'][0]['file_name']),
     r"images\[1\] \(id 2\): key 'file_name' is .* no other image has"),
    (gone('images', 'width'), r"\(id 1\): keys 'width' and 'height'"),
    (entry('images', width=-1), r"\(id 1\): key 'width' is -1"),
    (entry('images', width='wide'), r"\(id 1\): key 'width' is 'wide'"),
    (entry('images', width=1.5), r"\(id 1\): key 'width' is 1.5"),
    (gone('categories', 'name'), r"categories\[0\]: key 'name' is missing"),
    (entry('categories', name=' '), r"categories\[0\]: key 'name' is ' '"),
    (entry('categories', name='\udfff'), r"categories\[0\]: key 'name' is"),
    (entry('categories', name=None), r"categories\[0\]: key 'name' is None"),
    (lambda c: c.pop('images'), "'images' is missing, expected a list"),
    (lambda c: c.update(annotations={}), "'annotations' is dict, expected"),
    (lambda c: c['categories'].clear(), "'categories' is empty"),
    (lambda c: c['images'].append([]), r'images\[2\] is \[\], expected an'),
    (lambda c: c['annotations'].append(3), r'annotations\[3\] is 3, expected'),
    (set_all('bbox',
             [10, 20, 0, 40]), 'none that can be used among 3: .* 3 boxes'),
    (set_all('bbox', [500, 20, 9, 40]), '3 boxes outside of their image'),
    (set_all('bbox', [0.1, 0.2, 0.5, 0.8]), 'are they fractions'),
])
def test_the_rest_is_refused_with_file_entry_and_reason(
        tmp_path, edit, message):
    content = good()
    edit(content)
    with pytest.raises(ValueError, match=message) as raised:
        read(tmp_path, content, clip=True)
    assert str(raised.value).startswith(str(tmp_path / 'a.json'))
    assert '\n' not in str(raised.value)


@pytest.mark.parametrize('text, message', [
    ('[]', 'got a list, as of detections'),
    ('3', 'got int'),
    ('{}', "'categories' is missing"),
    ('{"images": [', 'not valid JSON'),
    ('[' * 10**5, 'nested too deeply'),
])
def test_what_is_no_annotation_file(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_boxes_are_dropped_clipped_or_left(tmp_path, warnings_logged):
    content = good()
    content['annotations'][0].update(bbox=[-10, 70, 30, 30])
    content['annotations'][1].update(bbox=[10, 20, 30, -1])
    clipped = read(tmp_path, copy.deepcopy(content), clip=True)['annotations']
    assert [a['bbox'] for a in clipped] == [[0, 70, 20, 10], [10, 20, 30, 40]]
    # The area is the mask's, and no larger than the box.
    assert clipped[0]['area'] == 200
    assert '1 boxes that reached out' in warnings_logged[0]
    assert '1 boxes without width or height' in warnings_logged[0]
    # COCO's evaluation does not clip.
    left = read(tmp_path, content)['annotations']
    assert [a['bbox'] for a in left] == [[-10, 70, 30, 30], [10, 20, 30, 40]]


def test_a_box_without_extent_is_that_of_its_polygons(tmp_path):
    content = good()
    content['annotations'][0].update(
        bbox=[0, 0, 0, 0], segmentation=[[5, 6, 25, 6, 25, 36, 5, 36]])
    assert read(tmp_path, content)['annotations'][0]['bbox'] == [5, 6, 20, 30]


def run_lengths(height, width):
    mask = np.zeros((height, width), np.uint8, order='F')
    mask[3:70, 5:50] = mask[10:20, 60:90] = 1
    encoded = mask_utils.encode(mask)
    return dict(size=[height, width], counts=encoded['counts'].decode())


TRIANGLE = [1, 2, 9, 2, 5, 8]


@pytest.mark.parametrize('masks, kept', [
    ([TRIANGLE], [TRIANGLE]),
    (TRIANGLE, [TRIANGLE]),
    ([TRIANGLE, [1, 2]], [TRIANGLE]),
    ([TRIANGLE, TRIANGLE + [1]], [TRIANGLE]),
    ([TRIANGLE, TRIANGLE[:4] + [math.nan, 3]], [TRIANGLE]),
    ([TRIANGLE, TRIANGLE[:4] + ['7', 3]], [TRIANGLE]),
    ([TRIANGLE, 'x'], [TRIANGLE]),
    ([[1, 2, 3, 4]], None),
    ('x', None),
    (7, None),
    ([], []),
    (run_lengths(80, 100), run_lengths(80, 100)),
    (dict(size=[80, 100],
          counts=[7000, 1000]), dict(size=[80, 100], counts=[7000, 1000])),
    (dict(size=[80, 100], counts=[7000, 999]), None),
    (dict(size=[80, 100], counts=[8001, -1]), None),
    (dict(size=[100, 80], counts=[7000, 1000]), None),
    (run_lengths(80, 99), None),
    (dict(run_lengths(80, 100), counts='x\u00e9'), None),
    (dict(run_lengths(80, 100), counts=run_lengths(80,
                                                   100)['counts'][:-1]), None),
    (dict(size=[80, 100]), None),
    (dict(counts=[8000]), None),
])
def test_masks_that_are_none_are_left_out(tmp_path, masks, kept):
    content = good()
    content['annotations'][0]['segmentation'] = masks
    found = read(tmp_path, content, clip=True)['annotations']
    assert len(found) == 3 and found[0].get('segmentation') == kept


def photograph(path, width, height, orientation=None):
    """An image of random pixels, in the file before its rotation."""
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(pixels.astype(np.uint8)).save(path, exif=exif)


def test_missing_sizes_are_read_from_the_images(tmp_path, warnings_logged):
    content = good()
    del content['images'][0]['width'], content['images'][0]['height']
    content['images'][1].update(width=0, height=None)
    photograph(tmp_path / '1.png', 100, 80)
    with pytest.raises(
            ValueError, match=r'images\[1\] \(id 2\): keys .*2.png'):
        read(tmp_path, content, images=tmp_path)
    found = read(
        tmp_path,
        copy.deepcopy(content),
        images=tmp_path,
        skip_unreadable=True)
    assert found['images'] == good()['images'][:1]
    assert [a['id'] for a in found['annotations']] == [5, 6]
    assert '1 images without a size that cannot be read' in warnings_logged[-1]
    # As the loader shows it.
    photograph(tmp_path / '2.png', 80, 100, orientation=6)
    assert read(tmp_path, content, images=tmp_path) == good()
    assert '2 sizes read from the image' in warnings_logged[-1]


def test_sizes_that_a_rotation_exchanged(tmp_path, warnings_logged):
    content = good()
    content['images'][0].update(width=80, height=100)
    content['annotations'][0]['bbox'] = [70, 20, 30, 40]
    photograph(tmp_path / '1.png', 80, 100, orientation=6)
    found = read(tmp_path, content, images=tmp_path, clip=True)
    assert found['images'] == good()['images']
    assert found['annotations'][0]['bbox'] == [70, 20, 30, 40]
    assert '1 images whose width and height were exchanged' in \
        warnings_logged[0]


def dataset(tmp_path, content, **kwargs):
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(content))
    return OVCocoDataset(
        ann_file=str(path),
        data_prefix=dict(img=str(tmp_path)),
        pipeline=[dict(type='mmdet.LoadImageFromFile')],
        **kwargs)


@pytest.mark.parametrize('size, said', [((80, 100), 'EXIF'),
                                        ((50, 40), '50x40 pixels')])
def test_an_image_of_another_size_is_not_trained_on(tmp_path, size, said):
    """Where no box shows it, only the image itself does."""
    content = good()
    photograph(tmp_path / '1.png', *size)
    photograph(tmp_path / '2.png', 100, 80)
    mine = dataset(tmp_path, content)
    assert mine[0]['img_id'] == 2 and mine.unreadable.count == 1
    with pytest.raises(UnreadableImageError, match=f'1.png.*{said}'):
        mine.prepare_data(0)


def test_training_needs_a_box(tmp_path):
    content = good()
    content['annotations'].clear()
    with pytest.raises(ValueError, match='a.json: expected boxes'):
        dataset(tmp_path, content)
    assert len(dataset(tmp_path, content, test_mode=True)) == 2
    content = good()
    set_all('bbox', [10, 20, 0.5, 40])(content)
    with pytest.raises(ValueError, match='a.json: expected boxes'):
        dataset(tmp_path, content)


def test_instances_without_masks_are_ignored_where_masks_are_trained(tmp_path):
    content = good()
    content['annotations'][0]['segmentation'] = [TRIANGLE]
    photograph(tmp_path / '1.png', 100, 80)
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(content))
    mine = OVCocoDataset(
        ann_file=str(path),
        data_prefix=dict(img=str(tmp_path)),
        pipeline=[
            dict(type='mmdet.LoadImageFromFile'),
            dict(type='mmdet.LoadAnnotations', with_bbox=True, with_mask=True)
        ])
    assert mine[0]['gt_ignore_flags'].tolist() == [False, True]


def test_panoptic_files(tmp_path, warnings_logged):

    def panoptic():
        content = good()
        for category in content['categories']:
            category['isthing'] = 1
        content['annotations'] = [
            dict(
                image_id=1,
                file_name='1.png',
                segments_info=[
                    dict(id=3, category_id=1, bbox=[0, 0, 9, 9]),
                    dict(id=4, category_id=18, bbox=[0, 0, 0, 9], area=0)
                ])
        ]
        return content

    found = check_coco(panoptic(), PanopticChecker('p.json'))['annotations']
    assert found[0]['segments_info'] == [
        dict(id=3, category_id=1, bbox=[0, 0, 9, 9], area=81, iscrowd=0)
    ]
    assert 'p.json: repaired 2 missing iscrowd' in warnings_logged[0]
    for edit, message in (
        (lambda c: c['annotations'].append(c['annotations'][0]), 'each once'),
        (lambda c: c['annotations'][0].update(image_id=5), "'image_id' is 5"),
        (lambda c: c['annotations'][0].pop('segments_info'), 'segments_info'),
        (lambda c: c['annotations'][0]['segments_info'][1].update(id=3),
         'no other segment'),
        (lambda c: c['annotations'][0]['segments_info'][1].update(
            category_id=3), "'category_id' is 3"),
        (lambda c: c['annotations'][0]['segments_info'][1].pop('bbox'),
         r"annotations\[0\]: segments_info\[1\]: key 'bbox' is missing"),
        (lambda c: c['categories'][0].pop('isthing'), 'isthing'),
    ):
        content = panoptic()
        edit(content)
        with pytest.raises(ValueError, match=message):
            check_coco(content, PanopticChecker('p.json'))


@pytest.mark.parametrize('changes, message', [
    (dict(score=math.nan), "entry 0: key 'score' is nan"),
    (dict(score='high'), "entry 0: key 'score' is 'high'"),
    (dict(bbox=[1, 2, 3]), "entry 0: key 'bbox'"),
    (dict(bbox=[1, 2, 3, -4]), "entry 0: key 'bbox'"),
    (dict(image_id=9), "entry 0: key 'image_id' is 9, expected one of the 1"),
    (dict(category_id=9), "entry 0: key 'category_id' is 9"),
])
def test_detections(tmp_path, changes, message):
    path = tmp_path / 'a.bbox.json'
    entry = dict(image_id='1', category_id=2, bbox=['1', 2, 3, 4], score='.5')
    path.write_text(json.dumps([entry]))
    assert read_detections(path, {1}, {2}) == [
        dict(image_id=1, category_id=2, bbox=[1, 2, 3, 4], score=0.5)
    ]
    path.write_text(json.dumps([dict(entry, **changes)]))
    with pytest.raises(ValueError, match=message) as raised:
        read_detections(path, {1}, {2})
    assert str(path) in str(raised.value)
    for text, message in (('{}', 'expected a list of boxes'),
                          ('[3]', 'entry 0 is 3'), ('[{}]', "'image_id' is")):
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            read_detections(path, {1}, {2})
