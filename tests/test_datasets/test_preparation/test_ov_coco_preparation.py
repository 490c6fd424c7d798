# Licensed under the Apache License, Version 2.0.
"""OV-COCO's files, against expectations worked out by hand."""
import json

import pytest

from mmdet_clim.datasets import ImageTextDataset, OVCocoDataset
from mmdet_clim.datasets.preparation import coco_json, ov_coco
from mmdet_clim.datasets.preparation.ov_coco import prepare_ov_coco

TRAIN, VAL, CAPTIONS = ov_coco.TRAIN, ov_coco.VAL, ov_coco.CAPTIONS


def read(path):
    return json.loads(path.read_text(encoding='utf-8'))


def images_and_boxes(path):
    content = read(path)
    assert len(content['categories']) == 65
    return ([i['id'] for i in content['images']],
            [a['id'] for a in content['annotations']])


def test_every_file_by_hand(coco_folder, tmp_path):
    out = tmp_path / 'out'
    summary, made = prepare_ov_coco(coco_folder, out)
    assert made
    assert (summary['base_classes'], summary['novel_classes']) == (48, 17)
    every = [7, 3, 9, 4]
    assert images_and_boxes(out / ov_coco.TRAIN_BASE) == (every, [1])
    assert images_and_boxes(out / 'instances_val2017_base.json') == (every,
                                                                     [1])
    assert images_and_boxes(
        out / 'instances_val2017_novel.json') == (every, [2, 4, 5])
    assert images_and_boxes(
        out / 'instances_val2017_all.json') == (every, [1, 2, 4, 5])
    # image 3 only holds a hot dog, image 4 nothing
    assert images_and_boxes(
        out / 'instances_val2017_base_detic.json') == ([7, 9], [1])
    assert images_and_boxes(
        out / 'instances_val2017_novel_detic.json') == ([7, 9], [2, 4, 5])
    assert images_and_boxes(
        out / 'instances_val2017_all_detic.json') == ([7, 9], [1, 2, 4, 5])

    # what is kept is kept as it was
    source, base = read(coco_folder / TRAIN), read(out / ov_coco.TRAIN_BASE)
    assert base['images'] == source['images']
    assert base['annotations'] == source['annotations'][:1]
    assert base['info'] == source['info'] and 'licenses' not in base
    assert read(out / 'instances_val2017_all.json')['licenses'] == [dict(id=1)]

    counts = summary['files']
    assert counts[ov_coco.TRAIN_BASE]['dropped'] == {
        'boxes of novel classes': 3,
        'boxes of other classes': 1
    }
    assert counts[ov_coco.TRAIN_BASE]['boxes_per_class']['person'] == 1
    assert len(counts[ov_coco.TRAIN_BASE]['boxes_per_class']) == 48
    detic = counts['instances_val2017_novel_detic.json']
    assert (detic['images'], detic['boxes']) == (2, 3)
    assert detic['dropped']['images without an object of the 65 classes'] == 2
    written = {}
    for part in ('train', 'val', 'captions'):
        written.update(read(out / f'ov_coco_{part}_summary.json')['files'])
    assert written == counts


def test_captions_and_their_tags_by_hand(coco_folder, tmp_path):
    summary, _ = prepare_ov_coco(coco_folder, tmp_path / 'out', ('captions', ))
    content = read(tmp_path / 'out' / ov_coco.CAPTIONS_TAGS)
    ids = {c['name']: c['id'] for c in content['categories']}
    assert content['images'] == [
        dict(
            id=7,
            file_name='7.jpg',
            height=10,
            width=20,
            captions=['A man with a kitten.', 'someone and a café'],
            pos_category_ids=sorted([ids['person'], ids['cat']])),
        dict(
            id=3,
            file_name='3.jpg',
            height=10,
            width=20,
            captions=['a hot dog'],
            pos_category_ids=[]),
        dict(
            id=9,
            file_name='9.jpg',
            height=10,
            width=20,
            captions=['Two buses at the bus stop'],
            pos_category_ids=[ids['bus']]),
    ]
    counts = summary['files'][ov_coco.CAPTIONS_TAGS]
    assert {
        k: counts[k]
        for k in ('images', 'captions', 'tags')
    } == {
        'images': 3,
        'captions': 4,
        'tags': 3
    }
    assert counts['images without a tag'] == 1
    assert counts['dropped'] == {
        'empty captions': 1,
        'images without a caption': 1
    }


def test_the_datasets_read_the_files(coco_folder, tmp_path):
    out = tmp_path / 'out'
    prepare_ov_coco(coco_folder, out)
    texts = ImageTextDataset(
        str(out / ov_coco.CAPTIONS_TAGS),
        vocabulary=dict(dataset='mmdet_clim.OVCocoDataset'))
    names = texts.metainfo['classes']
    assert [names[i]
            for i in texts.get_data_info(0)['tags']] == ['person', 'cat']
    boxes = OVCocoDataset(
        ann_file=str(out / ov_coco.TRAIN_BASE),
        data_prefix=dict(img=''),
        filter_cfg=dict(filter_empty_gt=True, min_size=0),
        strict_classes=True)
    assert [boxes.get_data_info(i)['img_id'] for i in range(len(boxes))] == [7]


@pytest.mark.parametrize('after', range(1, 4))
def test_killed_and_resumed_is_as_undisturbed(after, coco_folder, tmp_path,
                                              monkeypatch, killed, files_of):
    prepare_ov_coco(coco_folder, tmp_path / 'undisturbed')
    write = coco_json.write_coco
    names = []

    def write_or_die(path, parts):
        if len(names) == after:
            # in the middle of a file
            path.with_name(f'.{path.name}.writing').write_text('{"ima')
            raise killed
        names.append(path.name)
        write(path, parts)

    monkeypatch.setattr(coco_json, 'write_coco', write_or_die)
    with pytest.raises(killed):
        prepare_ov_coco(coco_folder, tmp_path / 'out')
    # nothing of an unfinished part is seen
    assert set(files_of(tmp_path / 'out')) == {
        ov_coco.TRAIN_BASE, 'ov_coco_train_summary.json'
    }
    again = []
    monkeypatch.setattr(
        coco_json, 'write_coco', lambda path, parts:
        (again.append(path.name), write(path, parts)))
    _, made = prepare_ov_coco(coco_folder, tmp_path / 'out')
    assert made
    # the training file was finished, so it is not written again
    assert ov_coco.TRAIN_BASE in names and ov_coco.TRAIN_BASE not in again
    assert files_of(tmp_path / 'out') == files_of(tmp_path / 'undisturbed')
    assert prepare_ov_coco(coco_folder, tmp_path / 'out')[1] is False


@pytest.mark.parametrize('name, edit, error, message', [
    (TRAIN, lambda c: c.pop('images'), ValueError, "'images' is missing"),
    (TRAIN, lambda c: c.update(images={}), ValueError,
     "'images' is dict, expected a list"),
    (TRAIN, lambda c: c['images'].clear(), ValueError, "'images' is empty"),
    (TRAIN, lambda c: c['images'][1].update(id=7), ValueError,
     r"images\[1\]: key 'id' is 7, expected one that no other"),
    (TRAIN, lambda c: c['images'][1].update(id='c'), ValueError,
     r"images\[1\]: key 'id' is 'c', expected an integer"),
    (TRAIN, lambda c: c['images'][2].pop('file_name'), ValueError,
     r"images\[2\] .*: key 'file_name' is None"),
    (TRAIN, lambda c: c['images'][2].update(width=0), ValueError,
     r"images\[2\] .*: keys 'width' and 'height' are missing or 0"),
    (TRAIN, lambda c: c['annotations'][3].update(category_id=999), ValueError,
     r"annotations\[3\] .*: key 'category_id' is 999, expected one of"),
    (VAL, lambda c: c['annotations'][0].update(image_id=1), ValueError,
     r"val2017.json: annotations\[0\] .*: key 'image_id' is 1"),
    (VAL, lambda c: c['annotations'][4].update(id=2), ValueError,
     r"annotations\[4\]: key 'id' is 2, the same as that of annotations\[1\]"),
    (VAL, lambda c: c['annotations'][4].update(bbox=[1, 2, 3]), ValueError,
     r"annotations\[4\] .*: key 'bbox' is \[1, 2, 3\]"),
    (VAL, lambda c: c['annotations'].append(3), ValueError,
     r'annotations\[5\] is 3, expected an object'),
    (TRAIN, lambda c: c['categories'].pop(0), ValueError,
     r"1 of the 65 classes of OV-COCO are missing: \['toothbrush'\]"),
    (TRAIN, lambda c: c['categories'].append(dict(id=101, name='x')),
     ValueError, r"categories\[67\]: key 'id' is 101"),
    (CAPTIONS, lambda c: c['annotations'][0].pop('caption'), ValueError,
     r"captions_train2017.json: annotations\[0\]: key 'caption' is"),
    (CAPTIONS, lambda c: c['annotations'].clear(), ValueError,
     'expected at least one caption'),
    (CAPTIONS, lambda c: c['annotations'][0].update(image_id=1), ValueError,
     r"annotations\[0\]: key 'image_id' is 1"),
])
def test_errors_say_where(name, edit, error, message, coco_folder, tmp_path,
                          change_json):
    change_json(coco_folder / name, edit)
    part = {TRAIN: 'train', VAL: 'val', CAPTIONS: 'captions'}[name]
    with pytest.raises(error, match=message):
        prepare_ov_coco(coco_folder, tmp_path / 'out', (part, ))


@pytest.mark.parametrize('text, error', [
    ('', ValueError),
    ('{"images": [', ValueError),
    ('[]', ValueError),
    ('{}', ValueError),
    ('{"images": [], "annotations": [], "categories": []} x', ValueError),
])
def test_what_is_no_coco_json(text, error, coco_folder, tmp_path):
    (coco_folder / TRAIN).write_text(text)
    with pytest.raises(error, match='instances_train2017.json'):
        prepare_ov_coco(coco_folder, tmp_path / 'out', ('train', ))


def test_parts_one_after_the_other_are_as_at_once(coco_folder, tmp_path,
                                                  files_of):
    prepare_ov_coco(coco_folder, tmp_path / 'at_once')
    for part in ('captions', 'train', 'val'):
        prepare_ov_coco(coco_folder, tmp_path / 'parts', (part, ))
    assert files_of(tmp_path / 'parts') == files_of(tmp_path / 'at_once')


def test_a_missing_file_and_a_file_in_the_way(coco_folder, tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    (out / ov_coco.TRAIN_BASE).write_text('mine')
    with pytest.raises(FileExistsError, match='is not of this tool'):
        prepare_ov_coco(coco_folder, out, ('train', ))
    assert [p.name for p in out.iterdir()] == [ov_coco.TRAIN_BASE]
    prepare_ov_coco(coco_folder, out, ('train', ), overwrite=True)
    # other inputs: not the same files
    (coco_folder / TRAIN).touch()
    with pytest.raises(FileExistsError, match='inputs instances_train2017'):
        prepare_ov_coco(coco_folder, out, ('train', ))
    (coco_folder / VAL).unlink()
    with pytest.raises(FileNotFoundError, match='instances_val2017.json'):
        prepare_ov_coco(coco_folder, out)
