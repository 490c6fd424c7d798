# Licensed under the Apache License, Version 2.0.
"""CC3M from its TSV and images, against expectations worked out by hand."""
import json
import zlib

import pytest

from mmdet_clim.datasets import ImageTextDataset, read_image
from mmdet_clim.datasets.preparation import cc3m, parts
from mmdet_clim.datasets.preparation.cc3m import (
    Row,
    RowFile,
    image_name,
    prepare_cc3m,
)
from mmdet_clim.datasets.preparation.own_captions import EntryWorker

CAPTIONS = ('a spray can', 'bats at night', 'nothing of that', 'clubs', ' ',
            'an aerosol can', 'a bat')


@pytest.fixture
def tsv(tmp_path):
    path = tmp_path / 'Train_GCC-training.tsv'
    path.write_text(''.join(f'{caption}\thttp://x.org/{number}\n'
                            for number, caption in enumerate(CAPTIONS)))
    return path


@pytest.fixture
def images(tmp_path, write_picture):
    """Rows 0, 1, 3 and 4 are good, 2 is missing, 5 and 6 are broken."""
    folder = tmp_path / 'images'
    for number in (0, 1, 3, 4, 6):
        data = write_picture(folder / f'{number}.jpg', 10 + number, 8)
    (folder / '5.jpg').write_text('<html>404</html>')
    (folder / '6.jpg').write_bytes(data[:-2])
    return folder


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lines_and_summary_by_hand(tsv, images, lvis_file, tmp_path):
    out = tmp_path / 'out' / 'cc3m.jsonl'
    out.parent.mkdir()
    summary, made = prepare_cc3m(tsv, out, lvis_file, images)
    assert made
    bats = ['bat (sports equipment)', 'bat (animal)']
    assert lines(out) == [
        dict(
            id=0,
            file_name='0.jpg',
            height=8,
            width=10,
            captions=['a spray can'],
            tags=['aerosol can']),
        dict(
            id=1,
            file_name='1.jpg',
            height=8,
            width=11,
            captions=['bats at night'],
            tags=bats),
        dict(
            id=3,
            file_name='3.jpg',
            height=8,
            width=13,
            captions=['clubs'],
            tags=bats[:1]),
    ]
    assert summary == dict(
        tool='prepare_cc3m',
        rows=7,
        classes_of_tags=3,
        files={
            'cc3m.jsonl':
            dict(
                images=3,
                captions=3,
                tags=4,
                dropped={
                    'empty captions': 1,
                    'images without a caption': 1,
                    'missing images': 1,
                    'unreadable images: cut short': 1,
                    'unreadable images: not an image': 1
                },
                tags_per_class={
                    'aerosol can': 1,
                    'bat (sports equipment)': 2,
                    'bat (animal)': 1
                })
        })
    assert json.loads(
        (out.parent / 'cc3m_summary.json').read_text()) == summary
    assert prepare_cc3m(tsv, out, lvis_file, images)[1] is False


def test_the_dataset_reads_both_formats(tsv, images, lvis_file, tmp_path):
    found = []
    for name in ('a.json', 'b.jsonl'):
        prepare_cc3m(tsv, tmp_path / name, lvis_file, images)
        dataset = ImageTextDataset(
            str(tmp_path / name),
            data_prefix=dict(img=str(images)),
            vocabulary=dict(
                dataset='mmdet_clim.OVLVISDataset', ann_file=str(lvis_file)))
        found.append([dataset.get_data_info(i) for i in range(len(dataset))])
        assert [info['tags'] for info in found[-1]] == [[0], [1, 2], [1]]
    for infos in found:
        for info in infos:
            info.pop('sample_idx', None)
    assert found[0] == found[1]


def test_killed_and_resumed_is_as_undisturbed(tsv, images, lvis_file, tmp_path,
                                              monkeypatch, killed, files_of):
    monkeypatch.setattr(parts, 'PART_SIZE', 2)
    for name in ('undisturbed', 'out'):
        (tmp_path / name).mkdir()
    prepare_cc3m(tsv, tmp_path / 'undisturbed' / 'a.jsonl', lvis_file, images)
    out = tmp_path / 'out' / 'a.jsonl'
    call = EntryWorker.__call__
    done = []

    def call_or_die(self, task):
        if len(done) == 2:
            raise killed
        done.append([entry.id for entry in task])
        return call(self, task)

    monkeypatch.setattr(EntryWorker, '__call__', call_or_die)
    with pytest.raises(killed):
        prepare_cc3m(tsv, out, lvis_file, images)
    assert done == [[0, 1], [2, 3]] and not files_of(out.parent)
    again = []
    monkeypatch.setattr(
        EntryWorker, '__call__', lambda self, task:
        (again.append([e.id for e in task]), call(self, task))[1])
    prepare_cc3m(tsv, out, lvis_file, images)
    assert again == [[4, 5], [6]]
    assert files_of(out.parent) == files_of(tmp_path / 'undisturbed')
    # two processes give the same file
    (tmp_path / 'two').mkdir()
    monkeypatch.undo()
    monkeypatch.setattr(parts, 'PART_SIZE', 2)
    prepare_cc3m(
        tsv, tmp_path / 'two' / 'a.jsonl', lvis_file, images, workers=2)
    assert files_of(tmp_path / 'two') == files_of(tmp_path / 'undisturbed')


def test_shards_whose_keys_are_rows(tsv, images, lvis_file, tmp_path,
                                    make_shard):
    picture = (images / '3.jpg').read_bytes()
    folder = tmp_path / 'shards'
    folder.mkdir()
    make_shard(
        folder / '00000.tar', {
            '000000003.jpg': picture,
            '000000003.txt': b'another caption than in the TSV',
            '000000000.jpg': (images / '0.jpg').read_bytes(),
            '000000005.jpg': b'',
            'cover.jpg': picture
        })
    make_shard(folder / '00001.tar', {'000000009.jpg': picture})
    (folder / '00002.tar').write_bytes(b'cut short')
    out = tmp_path / 'a.jsonl'
    summary, _ = prepare_cc3m(
        tsv, out, lvis_file, shards=str(folder / '*.tar'))
    assert summary['files']['a.jsonl']['dropped'] == {
        'images whose key is not a row of the TSV': 2,
        'images without a caption, whose keys are not rows of the TSV': 2,
        'unreadable shards': 1
    }
    assert summary['files']['a.jsonl']['noted'] == {cc3m.NOT_THE_ROW: 1}
    assert [(s['id'], s['captions'], s['tags']) for s in lines(out)] == [
        (3, ['another caption than in the TSV'], []),
    ]
    dataset = ImageTextDataset(str(out), data_prefix=dict(img=str(folder)))
    image, _ = read_image(dataset.get_data_info(0))
    assert image.shape == (8, 13, 3)


def test_rows_are_read_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.setattr(cc3m, 'STRIDE', 3)
    path = tmp_path / 'a.tsv'
    # no newline at the end, other line ends within, any alphabet
    path.write_bytes('\n'.join(f'Café \u2028 {n}\thttp://x/{n}'
                               for n in range(8)).encode())
    rows = RowFile(path)
    every = [Row(n, f'Café \u2028 {n}', f'http://x/{n}') for n in range(8)]
    assert rows.count == 8
    for first in range(9):
        for count in (0, 1, 4, 20):
            assert list(rows.rows(first, count)) == every[first:first + count]
    assert [rows.row(n) for n in (5, 0, 7)] == [every[n] for n in (5, 0, 7)]
    assert rows.row(8) is None


def test_names_of_images():
    row = Row(12345, 'a', 'http://x')
    assert image_name('{shard:05d}/{row:09d}.jpg',
                      row) == '00001/000012345.jpg'
    assert image_name('{crc32}', row) == str(zlib.crc32(b'http://x'))


@pytest.mark.parametrize('line, message', [
    (b'no tab\n', "line 8: expected a caption, a tab and a URL, got 'no tab'"),
    (b'a\tb\thttp://x\n', 'line 8: expected a caption, a tab'),
    (b'caption\turl\n', 'line 8: expected a caption, a tab'),
    (b'\xff\thttp://x\n', 'line 8: expected UTF-8'),
])
def test_wrong_lines(line, message, tsv, images, lvis_file, tmp_path):
    with open(tsv, 'ab') as file:
        file.write(line)
    with pytest.raises(ValueError, match=message):
        prepare_cc3m(tsv, tmp_path / 'a.jsonl', lvis_file, images)


def test_wrong_arguments(tsv, images, lvis_file, tmp_path):
    out = tmp_path / 'a.jsonl'
    for template in ('{url}.jpg', 'a.jpg', '{row:x', '{}'):
        with pytest.raises(ValueError, match='file_name='):
            prepare_cc3m(tsv, out, lvis_file, images, file_name=template)
    with pytest.raises(ValueError, match='ends in one of'):
        prepare_cc3m(tsv, tmp_path / 'a.csv', lvis_file, images)
    with pytest.raises(ValueError, match='either images or shards'):
        prepare_cc3m(tsv, out, lvis_file)
    with pytest.raises(ValueError, match='workers: expected at least 1'):
        prepare_cc3m(tsv, out, lvis_file, images, workers=0)
    for arguments in ((tmp_path / 'no.tsv', out, lvis_file,
                       images), (tsv, out, tmp_path / 'no.json', images),
                      (tsv, out, lvis_file, tmp_path / 'no')):
        with pytest.raises(FileNotFoundError, match='no such f'):
            prepare_cc3m(*arguments)
    with pytest.raises(FileNotFoundError, match='no such shard'):
        prepare_cc3m(tsv, out, lvis_file, shards=str(tmp_path / '*.tar'))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(
            ValueError, match="'missing images': 7.*the first: 0.jpg"):
        prepare_cc3m(tsv, out, lvis_file, tmp_path / 'empty')
    tsv.write_text('')
    with pytest.raises(ValueError, match='got an empty file'):
        prepare_cc3m(tsv, out, lvis_file, images)
    assert not out.exists()


@pytest.mark.parametrize('size', [1, 3, 7, 10, 12])
@pytest.mark.parametrize('beside', ['txt', 'caption', 'url', 'nothing'])
def test_shards_of_any_size(tmp_path, lvis_file, write_picture, make_shard,
                            size, beside):
    """img2dataset numbers by decades: shards of 7 begin at 0, 10, 20."""
    captions = [f'caption {number}' for number in range(25)]
    tsv = tmp_path / 'a.tsv'
    tsv.write_text(''.join(f'{caption}\thttp://x/{number}\n'
                           for number, caption in enumerate(captions)))
    picture = write_picture(tmp_path / 'a.jpg', 12, 9)
    decade = 10**len(str(size - 1))
    for shard in range(0, -(-25 // size)):
        members = {}
        for place, row in enumerate(range(shard * size, 25)[:size]):
            key = f'{shard * decade + place:09d}'
            members[f'{key}.jpg'] = picture
            if beside == 'txt':
                members[f'{key}.txt'] = captions[row].encode()
            elif beside == 'caption':
                members[f'{key}.json'] = json.dumps(
                    dict(caption=captions[row])).encode()
            elif beside == 'url':
                members[f'{key}.json'] = json.dumps(
                    dict(url=f'http://x/{row}')).encode()
        make_shard(tmp_path / f'{shard:05d}.tar', members)
    out = tmp_path / 'out.jsonl'
    summary, _ = prepare_cc3m(
        tsv, out, lvis_file, shards=str(tmp_path / '*.tar'))
    found = [line['captions'][0] for line in lines(out)]
    counts = summary['files']['out.jsonl']
    keys_are_rows = size == decade
    if beside in ('txt', 'caption'):
        assert found == captions
        assert (cc3m.NOT_THE_ROW in counts.get('noted', {})) != keys_are_rows
    elif beside == 'url':
        # Only where key and row are the same is the caption known.
        right = captions if keys_are_rows else captions[:size]
        assert found == right
        left = sum(n for reason, n in counts['dropped'].items())
        assert left == 25 - len(right)
    else:
        # Nothing tells, and the summary says so.
        assert counts['noted'][cc3m.NOT_COMPARED] == len(found)


def test_keys_that_are_no_rows(tmp_path, lvis_file, write_picture, make_shard):
    """Digests and the like, longer than an id or than Python's numbers."""
    tsv, out = tmp_path / 'a.tsv', tmp_path / 'out.jsonl'
    tsv.write_text('a\thttp://x/0\nb\thttp://x/1\n')
    picture = write_picture(tmp_path / 'a.jpg', 12, 9)
    members = {'1.jpg': picture, '1.txt': b'b'}
    for key in ('9' * 20, '1' * 90, '\u0663'):
        members.update({f'{key}.jpg': picture, f'{key}.txt': b'c'})
    make_shard(tmp_path / '0.tar', members)
    summary, _ = prepare_cc3m(
        tsv, out, lvis_file, shards=str(tmp_path / '0.tar'))
    assert [(line['id'], line['captions'])
            for line in lines(out)] == [(1, ['b'])]
    assert summary['files']['out.jsonl']['dropped'] == {
        'images whose key is not a row of the TSV': 3
    }


def test_images_that_came_later(tsv, images, lvis_file, tmp_path,
                                write_picture):
    out = tmp_path / 'a.jsonl'
    prepare_cc3m(tsv, out, lvis_file, images)
    assert not prepare_cc3m(tsv, out, lvis_file, images)[1]
    write_picture(images / '2.jpg', 12, 9)
    with pytest.raises(FileExistsError, match='other inputs images below'):
        prepare_cc3m(tsv, out, lvis_file, images)
    prepare_cc3m(tsv, out, lvis_file, images, overwrite=True)
    assert [line['id'] for line in lines(out)] == [0, 1, 2, 3]


def test_a_caption_that_begins_with_a_quotation_mark(images, lvis_file,
                                                     tmp_path):
    tsv = tmp_path / 'a.tsv'
    tsv.write_bytes(
        '\ufeff"Hello\thttp://x/0\r\n"a ""bat""\thttp://x/1\r\n'.encode())
    prepare_cc3m(tsv, tmp_path / 'a.jsonl', lvis_file, images)
    assert [line['captions']
            for line in lines(tmp_path / 'a.jsonl')] == [['"Hello'],
                                                         ['"a ""bat""']]
