# Licensed under the Apache License, Version 2.0.
"""Captioned images from each kind of source, clean and not."""
import json
import tarfile
from io import BytesIO

import cv2
import numpy as np
import pytest

from mmdet_clim.datasets import (
    ImageTextDataset,
    UnreadableImageError,
    read_image,
)
from mmdet_clim.registry import DATASETS

LOAD = [dict(type='mmdet_clim.LoadImageText')]
CLASSES = ('dog', 'horse', 'cat')


def build(path, **kwargs):
    kwargs.setdefault('vocabulary', CLASSES)
    kwargs.setdefault('data_prefix', dict(img=str(path.parent / 'images')))
    kwargs.setdefault('pipeline', LOAD)
    return ImageTextDataset(ann_file=str(path), **kwargs)


def test_coco_captions_with_tags(caption_file):
    dataset = build(caption_file)
    assert len(dataset) == 5
    info = dataset.get_data_info(0)
    assert info['img_id'] == 100
    assert info['captions'] == ['caption 0', 'another one']
    assert info['tags'] == [0, 2]  # category ids 17, 18: cat, dog
    assert dataset.get_cat_ids(1) == [0]
    assert (info['height'], info['width']) == (30, 40)
    assert dataset.metainfo['classes'] == CLASSES
    sample = dataset[3]
    assert sample['img'].shape == (30, 40, 3) and sample['img'][0, 0, 0] == 3


def test_it_is_built_by_its_scoped_name_with_the_names_of_a_data_set(
        caption_file):
    dataset = DATASETS.build(
        dict(
            type='mmdet_clim.ImageTextDataset',
            ann_file=caption_file.name,
            data_root=str(caption_file.parent),
            data_prefix=dict(img='images/'),
            vocabulary=dict(dataset='mmdet_clim.OVCocoDataset'),
            pipeline=LOAD))
    names = dataset.metainfo['classes']
    assert len(names) == 65 and len(dataset.metainfo['base_classes']) == 48
    assert [names[t] for t in dataset[0]['tags']] == ['cat', 'dog']


def test_plain_coco_captions_come_from_the_annotations(change_captions):

    def edit(content):
        for image in content['images']:
            del image['captions'], image['pos_category_ids']
        content['annotations'] = [
            dict(id=1, image_id=101, caption='first'),
            dict(id=2, image_id=103, caption='other'),
            dict(id=3, image_id=101, caption=' second ')
        ]

    dataset = build(change_captions(edit))
    assert [i['captions'] for i in map(dataset.get_data_info, range(2))
            ] == [['first', 'second'], ['other']]
    assert len(dataset) == 2


def test_captions_of_an_image_that_is_not_listed(change_captions):
    path = change_captions(lambda c: c.update(annotations=[
        dict(image_id=100, caption='x'),
        dict(image_id=7, caption='y')
    ]))
    with pytest.raises(
            ValueError, match="'image_id' is 7, expected one of the 5 ids"):
        build(path)


def test_a_list_of_images(tmp_path):
    path = tmp_path / 'own.json'
    # A byte order mark, as editors of Windows leave it.
    path.write_text(
        '[{"image": "a.png", "caption": "a dog", "tags": ["dog"]},'
        '{"file_name": "b.png", "captions": ["x"], "id": 7, "height": 3},'
        '{"image": "a.png", "captions": ["a cat"], "tags": ["cat"]},'
        '{"image": "b.png", "caption": "y"}]',
        encoding='utf-8-sig')
    dataset = build(path)
    first, second = map(dataset.get_data_info, range(2))
    assert len(dataset) == 2
    assert first['captions'] == ['a dog', 'a cat'] and first['tags'] == [0, 2]
    assert second['captions'] == ['x', 'y'] and second['tags'] == []
    assert (first['img_id'], second['img_id']) == (0, 7)
    assert second['height'] == 3


def test_json_lines(tmp_path, write_image):
    write_image(tmp_path / 'a.png', 4, 6)
    path = tmp_path / 'own.jsonl'
    path.write_text(
        '{"file_name": "a.png", "caption": "a dog", "tags": ["dog"]}\n\n'
        '{"file_name": "b.png", "captions": ["x", "y"], "id": 7}\n',
        encoding='utf-8')
    dataset = build(path, data_prefix=dict(img=str(tmp_path)))
    first, second = dataset.get_data_info(0), dataset.get_data_info(1)
    assert first['captions'] == ['a dog'] and first['tags'] == [0]
    assert (first['img_id'], second['img_id']) == (0, 7)
    assert 'height' not in first and second['tags'] == []
    assert dataset[0]['img'].shape == (6, 4, 3)


@pytest.mark.parametrize('texts, expected', [
    (dict(captions=['a', 'b']), ['a', 'b']),
    (dict(captions='a'), ['a']),
    (dict(caption=['a', 'b'], captions=['c']), ['c', 'a', 'b']),
    (dict(captions=None, caption='a'), ['a']),
    (dict(captions=None, text='b'), None),
    (dict(text=['a', ' ']), ['a']),
    (dict(caption='a', text='b'), ['a']),
    (dict(captions=[], text='b'), None),
])
def test_captions_are_texts_or_lists_of_texts(tmp_path, texts, expected):
    path = tmp_path / 'a.jsonl'
    path.write_text(
        json.dumps(dict(texts, file_name='a.png')) +
        '\n{"file_name": "b.png", "caption": "last"}')
    found = [
        ImageTextDataset(str(path)).get_data_info(i)['captions']
        for i in range(1 + (expected is not None))
    ]
    assert found == [*([expected] if expected else []), ['last']]


def test_a_key_tells_images_of_all_sources_apart(tmp_path):
    lines = ['{"file_name": "0.png", "caption": "x"}'] * 2
    lines[1] = lines[1].replace('0', '1')
    keys = []
    for name in ('mine', 'other', 'mine again'):
        path = tmp_path / f'{name}.jsonl'
        path.write_text('\n'.join(lines))
        folder = name.split()[0]
        dataset = build(path, data_prefix=dict(img=str(tmp_path / folder)))
        infos = [dataset.get_data_info(i) for i in range(2)]
        assert [i['img_id'] for i in infos] == [0, 1]
        keys.append([i['image_key'] for i in infos])
    assert keys[0] == keys[2]
    assert len({*keys[0], *keys[1]}) == 4
    # The queue keeps them as int64.
    assert all(0 <= key < 2**63 for key in keys[0] + keys[1])


def make_shard(path, members):
    with tarfile.open(path, 'w') as shard:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, BytesIO(data))


def test_webdataset_shards(tmp_path):
    images = [
        cv2.imencode('.png', np.full((5, n + 1, 3), n, np.uint8))[1].tobytes()
        for n in range(4)
    ]
    make_shard(
        tmp_path / 'cc-000.tar',
        {
            'dir/00.PNG': images[0],
            'dir/00.txt': b'a cat',
            'dir/01.png': images[1],
            'dir/01.json': b'{"caption": "b", "tags": ["cat"], "width": 2,'
            b'"height": 5}',
            'x' * 150 + '.png': images[2],  # a long name takes two headers
            'x' * 150 + '.txt': b'long',
            'only.txt': b'a caption without its image',
        })
    make_shard(tmp_path / 'cc-001.tar', {'0.png': images[3], '0.txt': b'z'})
    dataset = ImageTextDataset(
        'cc-*.tar', vocabulary=CLASSES, data_root=str(tmp_path), pipeline=LOAD)
    samples = [dataset[i] for i in range(4)]
    assert [s['captions'] for s in samples] == [['a cat'], ['b'], ['long'],
                                                ['z']]
    assert samples[1]['tags'] == [2] and samples[1]['width'] == 2
    for number, sample in enumerate(samples):
        assert sample['img'].shape == (5, number + 1, 3)
        assert (sample['img'] == number).all()
    assert len({s['img_id'] for s in samples}) == 4
    assert len({s['image_key'] for s in samples}) == 4
    assert samples[3]['img_path'].endswith('cc-001.tar/0.png')


def test_json_lines_that_name_images_in_shards(tmp_path, write_image):
    image = write_image(tmp_path / 'x.png', 20, 10).read_bytes()
    (tmp_path / 'shards').mkdir()
    make_shard(tmp_path / 'shards' / '0.tar', {
        '0.png': image,
        '0.txt': b'a cat'
    })
    from_tar = ImageTextDataset(str(tmp_path / 'shards' / '0.tar'))[0]
    line = dict(
        file_name='0.tar/0.png',
        caption='a cat',
        shard_path='0.tar',
        shard_offset=from_tar['shard_offset'],
        shard_size=len(image))
    path = tmp_path / 'a.jsonl'
    path.write_text(json.dumps(line))
    sample = ImageTextDataset(
        str(path), data_prefix=dict(img=str(tmp_path / 'shards')))[0]
    # the same image, also for the objectives, which go by its key
    for key in ('img_path', 'image_key', 'shard_path', 'shard_offset'):
        assert sample[key] == from_tar[key]
    assert read_image(sample)[0].shape == (10, 20, 3)

    for key, value in (('shard_offset', '0'), ('shard_size', 2**64),
                       ('shard_path', 'a\ud800')):
        path.write_text(json.dumps({**line, key: value}))
        with pytest.raises(ValueError, match=f"line 1: key '{key}' is "):
            ImageTextDataset(str(path))


def test_a_compressed_shard_is_refused(tmp_path):
    with tarfile.open(tmp_path / 'a.tar', 'w:gz') as shard:
        shard.addfile(tarfile.TarInfo('a.txt'))
    with pytest.raises(ValueError, match='uncompressed tar'):
        ImageTextDataset(str(tmp_path / 'a.tar'))


def test_images_without_a_caption_are_dropped_and_counted(
        change_captions, warnings_logged):

    def edit(content):
        content['images'][0]['captions'] = []
        content['images'][1]['captions'] = ['', '  ']
        content['images'][2]['captions'] = ['', 'left']
        del content['images'][3]['captions']

    dataset = build(change_captions(edit))
    assert [dataset.get_data_info(i)['img_id'] for i in range(2)] == [102, 104]
    assert dataset.get_data_info(0)['captions'] == ['left']
    assert ': 5 images, dropped ' in warnings_logged[0]
    assert '3 images without a caption' in warnings_logged[0]
    assert '3 empty captions' in warnings_logged[0]


def test_a_file_without_one_caption_is_an_error_at_start(change_captions):

    def edit(content):
        for image in content['images']:
            image['captions'] = ['']

    with pytest.raises(ValueError, match='at least one image with a caption'):
        build(change_captions(edit))


def test_tags_outside_the_vocabulary_are_dropped_by_name(
        caption_file, warnings_logged):
    dataset = build(caption_file, vocabulary=['dog'])
    assert dataset.get_data_info(0)['tags'] == [0]
    assert "3 tags of 1 names that the vocabulary lacks: 'cat' (3)" in \
        warnings_logged[0]


def test_a_category_id_without_a_category_is_dropped(change_captions,
                                                     warnings_logged):
    path = change_captions(
        lambda c: c['images'][0].update(pos_category_ids=[99]))
    assert build(path).get_data_info(0)['tags'] == []
    assert "'category id 99' (1)" in warnings_logged[0]


def test_without_a_vocabulary_there_are_no_tags(caption_file):
    dataset = build(caption_file, vocabulary=None)
    assert dataset.get_data_info(0)['tags'] == []
    assert 'classes' not in dataset.metainfo


@pytest.mark.parametrize('key, value, error', [
    ('file_name', 3, ValueError),
    ('file_name', '', ValueError),
    ('id', 'seven', ValueError),
    ('id', True, ValueError),
    ('id', 2**63, ValueError),
    ('height', 10**30, ValueError),
    ('width', 10**9, ValueError),
    ('captions', 5, ValueError),
    ('captions', [1], ValueError),
    ('captions', [['x']], ValueError),
    ('caption', {
        'en': 'x'
    }, ValueError),
    ('pos_category_ids', ['dog'], ValueError),
    ('pos_category_ids', 18, ValueError),
    ('height', 3.5, ValueError),
    ('width', 0, ValueError),
])
def test_a_wrong_value_is_named(change_captions, key, value, error):
    path = change_captions(lambda c: c['images'][2].update({key: value}))
    with pytest.raises(error, match=rf'images\[2\].*{key}'):
        build(path)


def test_a_missing_key_is_named(change_captions):
    path = change_captions(lambda c: c['images'][2].pop('file_name'))
    with pytest.raises(ValueError, match=r"images\[2\].*'file_name' is miss"):
        build(path)


def test_tags_need_categories(change_captions):
    with pytest.raises(ValueError, match="'categories'"):
        build(change_captions(lambda c: c.pop('categories')))


def test_broken_json_names_the_line(tmp_path):
    path = tmp_path / 'a.jsonl'
    path.write_text('{"file_name": "a", "caption": "b"}\n{', encoding='utf-8')
    with pytest.raises(ValueError, match='line 2: not valid JSON'):
        build(path)
    path.write_text('[1]', encoding='utf-8')
    with pytest.raises(ValueError, match='line 1: expected a JSON object'):
        build(path)


def test_bad_arguments(caption_file, tmp_path):
    with pytest.raises(FileNotFoundError, match='none.json'):
        build(tmp_path / 'none.json')
    (tmp_path / 'a.csv').write_text('', encoding='utf-8')
    with pytest.raises(ValueError, match='expected .json'):
        build(tmp_path / 'a.csv')
    with pytest.raises(ValueError, match='got both'):
        build(caption_file, metainfo=dict(classes=['dog']))
    with pytest.raises(ValueError, match='given twice'):
        build(caption_file, vocabulary=['dog', 'dog'])
    with pytest.raises(ValueError, match='only min_size and novel_tags'):
        build(caption_file, filter_cfg=dict(filter_empty_gt=True))
    with pytest.raises(ValueError, match='novel_tags needs a vocabulary'):
        build(caption_file, vocabulary=None, filter_cfg=dict(novel_tags=True))
    with pytest.raises(ValueError, match='report_every'):
        build(caption_file, report_every=0)


def test_min_size(change_captions):
    path = change_captions(lambda c: c['images'][1].update(width=8))
    assert len(build(path, filter_cfg=dict(min_size=10))) == 4


def test_tagged_images_alone(change_captions):
    """A tag that the vocabulary lacks is none."""

    def edit(content):
        content['images'][1].update(pos_category_ids=[])
        content['images'][3].update(pos_category_ids=[18])  # a dog

    path = change_captions(edit)

    def kept(classes, **wanted):
        dataset = build(path, vocabulary=classes, filter_cfg=wanted)
        return [
            dataset.get_data_info(i)['img_id'] for i in range(len(dataset))
        ]

    assert kept(CLASSES, tagged=True) == [100, 102, 103, 104]
    assert kept(('cat', 'cow'), tagged=True) == [100, 102, 104]
    assert kept(CLASSES, tagged=False) == [100, 101, 102, 103, 104]
    with pytest.raises(ValueError, match='leave an image of the 5 of'):
        kept(('cow', ), tagged=True)
    with pytest.raises(ValueError, match='tagged needs a vocabulary'):
        build(path, vocabulary=None, filter_cfg=dict(tagged=True))


def test_novel_tags(change_captions):
    # All five have a dog, the first, third and last a cat too.
    path = change_captions(
        lambda c: c['images'][4].update(pos_category_ids=[]))

    def kept(*base_names):
        dataset = build(
            path,
            vocabulary=dict(names=CLASSES, base_names=base_names),
            filter_cfg=dict(novel_tags=True))
        return [
            dataset.get_data_info(i)['img_id'] for i in range(len(dataset))
        ]

    assert kept('dog', 'horse') == [100, 102]
    assert kept('horse') == [100, 101, 102, 103]
    with pytest.raises(ValueError, match='leave an image of the 5 of'):
        kept('dog', 'cat')


def test_an_unreadable_image_is_replaced_by_the_next(caption_file,
                                                     warnings_logged):
    folder = caption_file.parent / 'images'
    (folder / '1.png').unlink()
    whole = (folder / '2.png').read_bytes()
    (folder / '2.png').write_bytes(whole[:len(whole) // 2])
    (folder / '4.png').write_bytes(b'')
    dataset = build(caption_file, report_every=3)
    ids = [dataset[i]['img_id'] for i in range(5)]
    assert ids == [100, 103, 103, 103, 100]
    assert dataset.unreadable.count == 4
    # Each is named once, also the one that was met twice.
    assert dataset.unreadable.indices == [1, 2, 4]
    assert [
        f'{name}.png' in line for name, line in zip('124', warnings_logged)
    ] == [True] * 3 and len(warnings_logged) == 3


def test_not_one_readable_image_is_an_error(caption_file):
    for path in (caption_file.parent / 'images').iterdir():
        path.unlink()
    with pytest.raises(UnreadableImageError, match='none of 5 samples'):
        build(caption_file)[2]


def test_in_test_mode_a_grey_image_takes_the_place(caption_file):
    (caption_file.parent / 'images' / '1.png').unlink()
    dataset = build(caption_file, test_mode=True)
    assert dataset[0]['img_id'] == 100
    sample = dataset[1]
    assert sample['img_id'] == 101 and sample['unreadable']
    assert (sample['img'] == 114).all()
    for path in (caption_file.parent / 'images').iterdir():
        path.unlink()
    dataset = build(caption_file, test_mode=True)
    for index in range(4):
        assert dataset[index]['unreadable']
    with pytest.raises(UnreadableImageError, match='none of the first 5 of 5'):
        dataset[4]


def test_several_files_and_no_image_is_opened_at_start(tmp_path):
    for name in 'ab':
        content = dict(
            images=[dict(id=1, file_name=f'{name}.jpg', captions=['nowhere'])])
        (tmp_path / f'{name}.json').write_text(
            json.dumps(content), encoding='utf-8')
    dataset = ImageTextDataset(['a.json', 'b.json'],
                               data_root=str(tmp_path),
                               data_prefix=dict(img='images'))
    paths = [dataset.get_data_info(i)['img_path'] for i in range(2)]
    assert paths == [str(tmp_path / 'images' / f'{n}.jpg') for n in 'ab']
