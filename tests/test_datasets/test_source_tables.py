# Licensed under the Apache License, Version 2.0.
"""Sources as tables: made once, shared, and whatever columns come in."""
import json
import multiprocessing
import os
import pickle
import shutil
import time

import cv2
import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from mmdet_clim.datasets import ImageTextDataset, source_tables
from mmdet_clim.datasets.made_once import FOLDER, made_once

LOAD = [dict(type='mmdet_clim.LoadImageText')]
CLASSES = ('dog', 'cat', 'cow')


def write_lines(path, count, **changes):
    """JSON lines, of which each third has no size and each fourth no tag."""
    with open(path, 'w', encoding='utf-8') as file:
        for number in range(count):
            line = dict(
                file_name=f'{number}.jpg',
                captions=[f'caption {number}'] * (1 + number % 2),
                tags=['cat', 'dog', 'other'][:number % 4])
            if number % 3:
                line.update(height=10 + number, width=20)
            file.write(json.dumps({**line, **changes}) + '\n')
    return str(path)


def infos(dataset):
    return [dataset.get_data_info(i) for i in range(len(dataset))]


@pytest.fixture
def no_reading(monkeypatch):
    """From the call on, a source that is read is a failure."""

    def forbid():

        def fail(path):
            raise AssertionError(f'{path} is read once more')

        monkeypatch.setattr(source_tables, 'READERS',
                            dict.fromkeys(source_tables.READERS, fail))

    return forbid


def test_a_source_is_read_once_and_again_when_it_changed(tmp_path, no_reading):
    path = write_lines(tmp_path / 'a.jsonl', 20)
    first = infos(ImageTextDataset(path, vocabulary=CLASSES))
    write_lines(tmp_path / 'a.jsonl', 20, captions=['of one length'])
    size = os.path.getsize(path)
    assert infos(ImageTextDataset(path))[7]['captions'] == ['of one length']
    # Nothing but the time tells these apart.
    write_lines(tmp_path / 'a.jsonl', 20, captions=['of 1   length'])
    assert os.path.getsize(path) == size
    assert infos(ImageTextDataset(path))[7]['captions'] == ['of 1   length']
    write_lines(tmp_path / 'a.jsonl', 20)
    assert infos(ImageTextDataset(path, vocabulary=CLASSES)) == first
    no_reading()
    # Vocabulary, folder and filter are no part of the table.
    assert infos(ImageTextDataset(path, vocabulary=CLASSES)) == first
    other = infos(ImageTextDataset(path, data_prefix=dict(img='x')))
    assert other[3]['img_path'] == 'x/3.jpg' and other[3]['tags'] == []
    tables = [p.name for p in (tmp_path / FOLDER).glob('*.captions.arrow')]
    assert len(tables) == 1 and tables[0].startswith('a.jsonl.')


def test_where_nothing_can_be_written_the_table_is_in_the_cache(
        tmp_path, monkeypatch, no_reading):
    path = write_lines(tmp_path / 'a.jsonl', 5)
    # In the place of the folder; whether root may write decides nothing.
    (tmp_path / FOLDER).write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    first = infos(ImageTextDataset(path, filter_cfg=dict(min_size=12)))
    assert len(list((tmp_path / 'cache').rglob('*.captions.arrow'))) == 1
    no_reading()
    again = infos(ImageTextDataset(path, filter_cfg=dict(min_size=12)))
    assert again == first
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    with pytest.raises(OSError, match='neither to .*XDG_CACHE_HOME'):
        ImageTextDataset(path)


def test_a_source_that_is_wrong_leaves_nothing(tmp_path):
    path = tmp_path / 'a.jsonl'
    path.write_text('{"file_name": "a", "caption": "b"}\n{"file_name": "b", '
                    '"caption": 3}\n')
    for _ in range(2):
        with pytest.raises(ValueError, match="line 2: key 'caption' is 3"):
            ImageTextDataset(str(path))
    assert not [
        p for p in (tmp_path / FOLDER).iterdir() if p.suffix != '.lock'
    ]


def test_a_large_source_says_so_once(tmp_path, monkeypatch):
    texts = []
    monkeypatch.setattr('mmdet_clim.datasets.made_once.print_log',
                        lambda text, *_: texts.append(text))
    path = write_lines(tmp_path / 'a.jsonl', 5)
    ImageTextDataset(path)
    assert texts == []
    monkeypatch.setattr('mmdet_clim.datasets.made_once._LARGE', 10)
    for _ in range(2):
        ImageTextDataset(
            write_lines(tmp_path /
                        'b.jsonl', 9) if not texts else str(tmp_path /
                                                            'b.jsonl'))
    text, = texts
    assert 'b.jsonl: reading its 0 MB' in text and FOLDER in text


def test_a_source_that_grows_while_it_is_read(tmp_path):
    path = tmp_path / 'a'
    path.write_text('x')
    with pytest.raises(RuntimeError, match='changed while it was read'):
        made_once(path, 'b', lambda out:
                  (out.write_text('x'), path.write_text('xy')))
    assert made_once(path, 'b',
                     lambda out: out.write_text('z')).read_text() == 'z'


def open_slowly(path, notes, start):
    """Open a source, noting when it is read."""
    read = source_tables.READERS['.jsonl']

    def slow(path):
        with open(notes, 'a', encoding='utf-8') as file:
            file.write(f'{os.getpid()}\n')
        time.sleep(.3)
        return read(path)

    source_tables.READERS['.jsonl'] = slow
    start.wait()
    assert len(ImageTextDataset(path)) == 30


def test_one_process_makes_it_and_the_others_wait(tmp_path):
    path = write_lines(tmp_path / 'a.jsonl', 30)
    context = multiprocessing.get_context('fork')
    start = context.Barrier(3)
    processes = [
        context.Process(
            target=open_slowly, args=(path, tmp_path / 'notes', start))
        for _ in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len((tmp_path / 'notes').read_text().splitlines()) == 1


def test_it_pickles_as_paths(tmp_path):
    sizes = []
    for count in (40, 20_000):
        path = write_lines(tmp_path / f'{count:05d}.jsonl', count)
        dataset = ImageTextDataset(
            path, vocabulary=CLASSES, filter_cfg=dict(tagged=True))
        data = pickle.dumps(dataset)
        sizes.append(len(data))
        copy = pickle.loads(data)
        assert len(copy) == len(dataset) == count * 3 // 4
        assert copy.get_data_info(17) == dataset.get_data_info(17)
        assert copy.unreadable.indices == []
    # Beyond the first batch of rows.
    last = dataset.get_data_info(len(dataset) - 1)
    assert last['captions'] == ['caption 19999'] * 2
    assert abs(sizes[0] - sizes[1]) < 100


def test_rows_against_plain_python(tmp_path):
    """All rows of two files, filtered and not, by the lines themselves."""
    files = [
        write_lines(tmp_path / 'a.jsonl', 50),
        write_lines(tmp_path / 'b.jsonl', 31)
    ]
    expected = []
    for path in files:
        first = len(expected)
        for number, line in enumerate(open(path, encoding='utf-8')):
            raw = json.loads(line)
            expected.append(
                dict(
                    img_id=first + number,
                    img_path=raw['file_name'],
                    captions=raw['captions'],
                    tags=sorted(
                        CLASSES.index(t) for t in raw['tags'] if t in CLASSES),
                    size=[raw.get('width', 0),
                          raw.get('height', 0)],
                    is_tall=-1 if not raw.get('width') or not raw.get('height')
                    else raw['height'] > raw['width']))

    def found(**kwargs):
        dataset = ImageTextDataset(files, vocabulary=CLASSES, **kwargs)
        tall = np.concatenate([*dataset.image_orientations()]).tolist()
        return [
            dict({k: i[k]
                  for k in ('img_id', 'img_path', 'captions', 'tags')},
                 size=[i.get('width', 0),
                       i.get('height', 0)],
                 is_tall=told) for i, told in zip(infos(dataset), tall)
        ]

    assert found() == expected
    assert found(filter_cfg=dict(tagged=True)) == [
        e for e in expected if e['tags']
    ]
    big = [e for e in expected if not e['size'][1] or min(e['size']) >= 20]
    assert found(filter_cfg=dict(min_size=20)) == big
    assert 0 < len(big) < len(expected)
    assert found(indices=7) == expected[:7]
    assert found(indices=-7) == expected[-7:]
    assert found(indices=[60, 3, 3]) == [expected[i] for i in (60, 3, 3)]
    subset = ImageTextDataset(files).get_subset([60, -1])
    assert [i['img_id'] for i in infos(subset)] == [60, 80]


def png(value):
    image = np.full((4, value, 3), value, np.uint8)
    return cv2.imencode('.png', image)[1].tobytes()


def embedded(values):
    """A column as Hugging Face writes its images."""
    return pa.array([
        None if v is None else dict(bytes=png(v), path='x.png') for v in values
    ], pa.struct([('bytes', pa.binary()), ('path', pa.string())]))


def save_to_disk(folder, table, files=2):
    """What ``datasets.Dataset.save_to_disk`` writes."""
    folder.mkdir()
    names = [f'data-{n:05d}-of-{files:05d}.arrow' for n in range(files)]
    rows = -(-len(table) // files)
    for number, name in enumerate(names):
        with pa.ipc.new_stream(folder / name, table.schema) as writer:
            writer.write_table(
                table.slice(number * rows, rows), max_chunksize=3)
    (folder / 'state.json').write_text(
        json.dumps(dict(_data_files=[dict(filename=n) for n in names])))
    (folder / 'dataset_info.json').write_text('{}')


@pytest.mark.parametrize('kind', ['parquet', 'arrow', 'parquet folder'])
def test_images_within_columns(tmp_path, kind, no_reading):
    values = [3, 200, 7, 1, 90, 255, 4]
    table = pa.table(
        dict(
            image=embedded(values),
            text=[f'of {v}' for v in values],
            id=[f'row {v}' for v in values],
            label=values))
    if kind == 'arrow':
        save_to_disk(tmp_path / 'set', table)
        path = tmp_path / 'set'
    else:
        path = tmp_path / 'set.parquet'
        parquet.write_table(table, path, row_group_size=3)
        if kind == 'parquet folder':
            (tmp_path / 'other').mkdir()
            path = path.rename(tmp_path / 'other' / '0.parquet').parent
    for _ in range(2):
        dataset = ImageTextDataset(str(path), pipeline=LOAD)
        samples = [dataset[i] for i in range(7)]
        assert [s['img'].shape for s in samples] == [(4, value, 3)
                                                     for value in values]
        assert [s['img'][0, 0, 0] for s in samples] == values
        assert [s['captions'] for s in samples] == [[f'of {v}']
                                                    for v in values]
        assert [s['img_id'] for s in samples] == list(range(7))
        assert len({s['image_key'] for s in samples}) == 7
        no_reading()


def test_images_that_columns_name(tmp_path, write_image):
    write_image(tmp_path / 'a.png', 6, 4)
    parquet.write_table(
        pa.table(
            dict(
                file_name=['a.png', 'b.png', 'c.png'],
                caption=[['a dog', 'a cat'], [], ['x']],
                tags=[['dog'], [], None],
                id=[70, None, 9],
                height=[4, None, 5],
                width=[6, None, 5])), tmp_path / 'a.parquet')
    dataset = ImageTextDataset(
        str(tmp_path / 'a.parquet'),
        vocabulary=CLASSES,
        data_prefix=dict(img=str(tmp_path)),
        pipeline=LOAD)
    assert len(dataset) == 2
    assert dataset[0]['img'].shape == (4, 6, 3)
    first, last = infos(dataset)
    assert (first['img_id'], last['img_id']) == (70, 9)
    assert first['captions'] == ['a dog', 'a cat'] and first['tags'] == [0]
    assert (last['height'], last['tags']) == (5, [])


def test_metadata_of_an_image_folder(tmp_path):
    """Hugging Face's: JSON lines with a text."""
    path = tmp_path / 'metadata.jsonl'
    path.write_text('{"file_name": "a.png", "text": "a dog"}')
    assert infos(ImageTextDataset(str(path)))[0]['captions'] == ['a dog']


@pytest.mark.parametrize('columns, message', [
    (dict(url=['a'], caption=['b']), 'expected a column of .*file_name'),
    (dict(image=['a'], title=['b']), 'and one of .*caption'),
    (dict(image=['a'], caption=[3]), "row 0: key 'caption' is 3"),
    (dict(image=['a', None], caption=['x', 'y']), "row 1: key 'image' is No"),
    (dict(image=['a'], caption=['x'], tags=['dog']), "row 0: key 'tags'"),
    (dict(image=['a'], caption=['x'], height=[0]), "row 0: key 'height' is 0"),
    (dict(image=['a'], caption=['x'], width=[2.5]), "row 0: key 'width'"),
    (dict(image=['a'], caption=[None]), 'got none among 1 images'),
])
def test_columns_that_do_not_fit(tmp_path, columns, message):
    path = tmp_path / 'a.parquet'
    parquet.write_table(pa.table(columns), path)
    with pytest.raises(ValueError, match=message) as caught:
        ImageTextDataset(str(path))
    assert str(path) in str(caught.value)


def test_columns_that_stand_twice(tmp_path):
    path = tmp_path / 'a.parquet'
    parquet.write_table(
        pa.Table.from_arrays([pa.array(['a'])] * 3,
                             ['image', 'caption', 'caption']), path)
    with pytest.raises(ValueError, match="a.parquet.*got 'caption' twice"):
        ImageTextDataset(str(path))


@pytest.mark.parametrize('suffix', ['parquet', 'arrow'])
def test_images_beside_the_names_of_their_files(tmp_path, suffix):
    """The images are read, and of a null row neither bytes nor name."""
    image = pa.StructArray.from_arrays(
        embedded([5, 6, 7]).flatten(), ['bytes', 'path'],
        mask=pa.array([False, True, False]))
    table = pa.table(
        dict(
            file_name=['x.png', 'y.png', 'z.png'],
            image=image,
            captions=['one', 'two', 'three']))
    path = tmp_path / f'a.{suffix}'

    def write(table):
        if suffix == 'parquet':
            parquet.write_table(table, path)
            return
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)

    write(table)
    with pytest.raises(ValueError, match="row 1: key 'image' is None"):
        ImageTextDataset(str(path))
    write(table.take([0, 2]))
    dataset = ImageTextDataset(str(path), pipeline=LOAD)
    assert [(s['img'].shape[1], s['captions'])
            for s in (dataset[0], dataset[1])] == [(5, ['one']),
                                                   (7, ['three'])]


def test_files_that_are_no_columns(tmp_path):
    for name in ('a.parquet', 'a.arrow'):
        for content in (b'', b'PAR1', b'ARROW1\0\0' + bytes(50), b'x' * 99):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=f"{name}'?: expected a"):
                ImageTextDataset(str(tmp_path / name))
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='one without .*state.json'):
        ImageTextDataset(str(tmp_path / 'empty'))
    (tmp_path / 'dict').mkdir()
    save_to_disk(tmp_path / 'dict' / 'train',
                 pa.table(dict(image=['a'], text=['b'])), 1)
    with pytest.raises(ValueError, match="expected one split, such as '.*tr"):
        ImageTextDataset(str(tmp_path / 'dict'))
    assert len(ImageTextDataset(str(tmp_path / 'dict' / 'train'))) == 1
    (tmp_path / 'dict' / 'train' / 'state.json').write_text('[]')
    with pytest.raises(ValueError, match='state.json'):
        ImageTextDataset(str(tmp_path / 'dict' / 'train'))


def test_folders_of_several_splits_and_of_selections(tmp_path):
    table = pa.table(dict(image=['a.png'], text=['a dog']))
    for name in ('train-00000-of-00002', 'train-00001-of-00002-0a1b',
                 'test-00000-of-00001'):
        parquet.write_table(table, tmp_path / f'{name}.parquet')
    with pytest.raises(
            ValueError,
            match=r"such as '(.*)', got files of "
            r"\['test', 'train'\]") as error:
        ImageTextDataset(str(tmp_path))
    pattern = str(error.value).split("such as '")[1].partition("'")[0]
    assert len(ImageTextDataset(pattern)) == 2
    # What older versions of datasets wrote of a selection.
    folder = tmp_path / 'saved'
    save_to_disk(folder, table, files=1)
    assert len(ImageTextDataset(str(folder))) == 1
    state = json.loads((folder / 'state.json').read_text())
    state['_indices_data_files'] = [dict(filename='indices.arrow')]
    (folder / 'state.json').write_text(json.dumps(state))
    with pytest.raises(ValueError, match='state.json: .* a selection'):
        ImageTextDataset(str(folder))


def test_compressed_images_of_arrow_are_refused(tmp_path):
    table = pa.table(dict(image=embedded([200] * 9), text=['x'] * 9))
    options = pa.ipc.IpcWriteOptions(compression='zstd')
    with pa.ipc.new_stream(
            tmp_path / 'a.arrow', table.schema, options=options) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match='compressed'):
        ImageTextDataset(str(tmp_path / 'a.arrow'))


#: Characters of a caption, a number that is nowhere else in a table.
LONG = 12345


def outside_of_the_file(data):
    """The first caption ends far behind all of them."""
    place = data.rindex(np.array([0, LONG], np.int32).tobytes())
    ends = np.array([0, 1 << 30], np.int32).tobytes()
    return data[:place] + ends + data[place + len(ends):]


def other_columns(data):
    """A table of names alone."""
    sink = pa.BufferOutputStream()
    batch = pa.record_batch(dict(file_name=['a.jpg']))
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
        writer.write_batch(
            batch.slice(0, 0),
            custom_metadata=dict(facts=json.dumps([1, 0, 0, 0, {}, {}])))
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize('damage', [
    lambda data: b'', lambda data: data[:len(data) // 2],
    lambda data: b'{}' + data, lambda data: data[:-1] + b'x', other_columns,
    outside_of_the_file
])
def test_a_table_that_came_with_the_data(tmp_path, damage):
    """It is one of this package's, whole, or refused in one line."""
    path = write_lines(tmp_path / 'a.jsonl', 20, captions=['x' * LONG])
    expected = infos(ImageTextDataset(path))
    table, = (tmp_path / FOLDER).glob('*.captions.arrow')
    table.write_bytes(damage(table.read_bytes()))
    with pytest.raises(ValueError, match='the cached table of .*remove it'):
        infos(ImageTextDataset(path))
    table.unlink()
    assert infos(ImageTextDataset(path)) == expected


@pytest.mark.parametrize('rows', [
    np.array([3, 20]),
    np.array([-1, 3]),
    np.array([4, 4]),
    np.array([0., 1.]),
    np.array([[0, 1]]),
    np.array(['a', 'b'], object)
])
def test_rows_that_came_with_the_data(tmp_path, rows):
    """Those of the filter are rows of the table, or refused in one line."""
    path = write_lines(tmp_path / 'a.jsonl', 20)
    wanted = dict(filter_cfg=dict(min_size=20))
    expected = infos(ImageTextDataset(path, **wanted))
    file, = (tmp_path / FOLDER).glob('*.rows-*.npy')
    np.save(file, rows)
    with pytest.raises(
            ValueError, match='rows-.*npy: the cached table .*remove it'):
        ImageTextDataset(path, **wanted)
    file.unlink()
    assert infos(ImageTextDataset(path, **wanted)) == expected


def test_links_that_came_with_the_data(tmp_path, monkeypatch):
    """Nothing is written where they lead to."""
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    data, other = tmp_path / 'data', tmp_path / 'other'
    for folder in (data, other):
        folder.mkdir()
    path = write_lines(data / 'a.jsonl', 5)
    (data / FOLDER).symlink_to(other)
    assert len(infos(ImageTextDataset(path))) == 5
    assert len(list((tmp_path / 'cache').rglob('*.captions.arrow'))) == 1
    (data / FOLDER).unlink()
    shutil.rmtree(tmp_path / 'cache')
    assert len(ImageTextDataset(path)) == 5
    # What is written beside the table before it is renamed.
    table, = (data / FOLDER).glob('*.captions.arrow')
    table.unlink()
    (other / 'own').write_text('kept')
    (data / FOLDER / f'.{table.name}.writing').symlink_to(other / 'own')
    assert len(ImageTextDataset(path)) == 5
    assert [p.name for p in other.iterdir()] == ['own']
    assert (other / 'own').read_text() == 'kept'
