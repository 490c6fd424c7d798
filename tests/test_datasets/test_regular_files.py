# Licensed under the Apache License, Version 2.0.
"""Names in data that are no files, or hold more than fits the memory."""
import json
import os
import tarfile

import pytest

from mmdet_clim.datasets import (
    ImageTextDataset,
    OVCocoDataset,
    UnreadableImageError,
    read_image,
)
from mmdet_clim.datasets.coco_annotations import read_coco
from mmdet_clim.datasets.json_files import read_json
from mmdet_clim.datasets.preparation.own_captions import prepare_image_text
from mmdet_clim.datasets.regular_files import read_regular
from mmdet_clim.datasets.text_files import read_lines, read_text

LARGE = 8 << 30
# Where the system has none of them, the name is that of a missing file.
ODD_NAMES = ('/dev/zero', '/dev/stdin', 'pipe.jpg', 'folder.jpg', 'large.jpg',
             'a\0b.jpg', '\ud800.jpg', 'x' * 300 + '.jpg', 'loop.jpg',
             'http://127.0.0.1:9/a.jpg', 'https://127.0.0.1:9/a.jpg',
             's3://bucket/a.jpg', 'file:///etc/passwd', '/etc/passwd',
             '../../../../etc/passwd', '/proc/self/environ', 'missing.jpg')


@pytest.fixture
def odd_files(tmp_path, write_image, monkeypatch):
    """A folder of what is no image, and one that is; nothing is fetched."""
    monkeypatch.setattr('urllib.request.urlopen', None)
    monkeypatch.setattr('socket.socket.connect', None)
    os.mkfifo(tmp_path / 'pipe.jpg')
    (tmp_path / 'folder.jpg').mkdir()
    (tmp_path / 'loop.jpg').symlink_to(tmp_path / 'loop.jpg')
    with open(tmp_path / 'large.jpg', 'wb') as file:
        file.truncate(LARGE)
    write_image(tmp_path / 'good.png', 20, 10)
    return tmp_path


def test_no_odd_name_is_read(odd_files):
    for name in ODD_NAMES:
        for path in (name, os.path.join(str(odd_files), name)):
            with pytest.raises(UnreadableImageError, match='^img_path=') as e:
                read_image(dict(img_path=path))
            assert '\n' not in str(e.value)


@pytest.mark.parametrize('offset, size', [(-1, 5), (0, -1), (0, 10**6),
                                          (10**6, 1), (0, LARGE)])
def test_a_part_that_is_not_within_its_file(odd_files, offset, size):
    sample = dict(
        img_path='x',
        shard_path=str(odd_files / 'good.png'),
        shard_offset=offset,
        shard_size=size)
    with pytest.raises(UnreadableImageError, match='within its'):
        read_image(sample)
    with pytest.raises(UnreadableImageError, match='got a pipe'):
        read_image(dict(sample, shard_path=str(odd_files / 'pipe.jpg')))


def test_a_file_is_read_and_its_parts(tmp_path):
    (tmp_path / 'a').write_bytes(b'0123456789')
    assert read_regular(tmp_path / 'a') == b'0123456789'
    assert read_regular(tmp_path / 'a', 3, 4) == b'3456'
    assert read_regular(tmp_path / 'a', 10) == b''
    with pytest.raises(OSError, match='10 bytes, expected at most 9'):
        read_regular(tmp_path / 'a', limit=9)
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / 'b')


def test_training_replaces_them(odd_files):
    no_text = ('a\0b.jpg', '\ud800.jpg')
    names = [*(n for n in ODD_NAMES if n not in no_text), 'good.png']
    (odd_files / 'captions.jsonl').write_text('\n'.join(
        json.dumps(dict(file_name=name, caption='a')) for name in names))
    load = [dict(type='mmdet_clim.LoadImageText')]
    for prefix in ('', f'{odd_files}/'):
        dataset = ImageTextDataset(
            str(odd_files / 'captions.jsonl'),
            data_prefix=dict(img=prefix),
            pipeline=load)
        if prefix:
            assert dataset[0]['img'].shape == (10, 20, 3)
            assert len(dataset.unreadable.indices) == len(names) - 1
        else:
            with pytest.raises(UnreadableImageError, match='none of'):
                dataset[0]


@pytest.mark.parametrize('name', ['a\0b.jpg', '\ud800.jpg'])
def test_a_name_that_no_file_can_have(tmp_path, name):
    (tmp_path / 'a.jsonl').write_text(
        json.dumps(dict(file_name=name, caption='a')))
    with pytest.raises(ValueError, match="a.jsonl: line 1: key 'file_name'"):
        len(ImageTextDataset(str(tmp_path / 'a.jsonl')))


def test_boxed_images_are_not_fetched_either(odd_files):
    names = [*ODD_NAMES[:5], *ODD_NAMES[8:], 'good.png']
    (odd_files / 'boxes.json').write_text(
        json.dumps(
            dict(
                images=[
                    dict(id=i, file_name=name, width=20, height=10)
                    for i, name in enumerate(names)
                ],
                annotations=[
                    dict(
                        id=i,
                        image_id=i,
                        category_id=1,
                        bbox=[1, 1, 5, 5],
                        area=25,
                        iscrowd=0) for i in range(len(names))
                ],
                categories=[dict(id=1, name='cat')])))
    for loader in ('LoadImageFromFile', 'mmdet_clim.LoadImageText'):
        dataset = OVCocoDataset(
            ann_file=str(odd_files / 'boxes.json'),
            data_prefix=dict(img=f'{odd_files}/'),
            pipeline=[dict(type=loader)])
        assert dataset[0]['img_path'].endswith('good.png')
        assert len(dataset.unreadable.indices) == len(names) - 1


def test_preparation_counts_them(odd_files):
    names = [name for name in ODD_NAMES if name != '\ud800.jpg']
    (odd_files / 'captions.json').write_text(
        json.dumps([
            dict(file_name=name, caption='a') for name in [*names, 'good.png']
        ]))
    summary, _ = prepare_image_text(
        str(odd_files / 'captions.json'), odd_files / 'out.jsonl')
    text = json.dumps(summary)
    assert '"images": 1' in text
    written = (odd_files / 'out.jsonl').read_text().splitlines()
    assert [json.loads(line)['file_name'] for line in written] == ['good.png']
    # What a training reads of it is there already.
    assert list(odd_files.glob('.mmdet_clim/out.jsonl.*.captions.arrow'))


@pytest.mark.parametrize('name', ['large', 'pipe', 'folder', 'zero'])
def test_texts_that_are_no_files(odd_files, name):
    path = '/dev/zero' if name == 'zero' else str(odd_files / f'{name}.jpg')
    for read in (read_text, read_json, lambda p: list(read_lines(p)),
                 read_coco):
        with pytest.raises((ValueError, OSError), match=name):
            read(path)


def test_a_line_without_an_end(tmp_path):
    with open(tmp_path / 'a.jsonl', 'wb') as file:
        file.write(b'{}\n')
        for _ in range(18):
            file.write(b' ' * (1 << 20))
    with pytest.raises(ValueError, match='a.jsonl: line 2: longer than'):
        list(read_lines(tmp_path / 'a.jsonl'))


@pytest.mark.parametrize('text', [
    '[' * 10**6, '[' * 10**5 + ']' * 10**5, '{"a":' * 10**5 + '1' +
    '}' * 10**5, '{"images": ' + '[' * 10**5 + ']' * 10**5 + '}'
])
def test_deep_json_is_one_line(tmp_path, text):
    path = tmp_path / 'deep.json'
    path.write_text(text)
    for read in (read_json, read_coco, lambda p: ImageTextDataset(str(p))):
        with pytest.raises(ValueError, match='deep.json') as caught:
            read(path)
        assert '\n' not in str(caught.value) and len(str(caught.value)) < 400


def test_a_text_in_a_shard_that_is_longer_than_texts_are(tmp_path):
    (tmp_path / 'a.txt').write_bytes(b' ' * (17 << 20))
    (tmp_path / 'a.jpg').write_bytes(b'')
    with tarfile.open(tmp_path / 'a.tar', 'w') as shard:
        for name in ('a.jpg', 'a.txt'):
            shard.add(tmp_path / name, name)
    with pytest.raises(ValueError, match='a.tar.*at least one image'):
        len(ImageTextDataset(str(tmp_path / 'a.tar')))
