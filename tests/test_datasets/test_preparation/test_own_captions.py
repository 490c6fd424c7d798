# Licensed under the Apache License, Version 2.0.
"""One's own captioned images from every kind of source."""
import json

import pytest

from mmdet_clim.datasets import (
    ImageTextDataset,
    build_vocabulary,
    read_image,
)
from mmdet_clim.datasets.preparation import own_captions
from mmdet_clim.datasets.preparation.own_captions import (
    Columns,
    prepare_image_text,
    read_synonyms,
)

WORDS = build_vocabulary(['couch', 'cat', 'Käse'])
SYNONYMS = {'couch': ['sofa']}


def read(path):
    return json.loads(path.read_text())


@pytest.fixture
def folder(tmp_path, write_picture):
    root = tmp_path / 'mine'
    for name, text in {
            'b.jpg': 'Two cats\n\n on a sofa ',
            'a/é.png': '\ufeffKa\u0308se',
            'c.jpg': '\n',
            'd.JPG': None,
            'e.jpg': 'a cat',
    }.items():
        write_picture(root / name, 12, 9)
        if text is not None:
            (root / name).with_suffix('.txt').write_text(
                text, encoding='utf-8')
    (root / 'e.txt').write_bytes(b'\xff\xfe')
    (root / 'README.txt').write_text('no image is called so')
    return root


def test_a_folder_by_hand(folder, tmp_path):
    out = tmp_path / 'mine.json'
    summary, made = prepare_image_text(str(folder), out, WORDS, SYNONYMS)
    assert made
    content = read(out)
    assert content['categories'] == [
        dict(id=1, name='couch'),
        dict(id=2, name='cat'),
        dict(id=3, name='Käse')
    ]
    assert content['images'] == [
        dict(
            id=1,
            file_name='a/é.png',
            height=9,
            width=12,
            captions=['Ka\u0308se'],
            pos_category_ids=[3]),
        dict(
            id=2,
            file_name='b.jpg',
            height=9,
            width=12,
            captions=['Two cats', 'on a sofa'],
            pos_category_ids=[1, 2]),
    ]
    counts = summary['files']['mine.json']
    assert counts['dropped'] == {
        'images without a caption': 1,
        'images without a text file': 1,
        'images whose text file is not UTF-8': 1
    }
    assert counts['tags_per_class'] == {'couch': 1, 'cat': 1, 'Käse': 1}
    dataset = ImageTextDataset(
        str(out), vocabulary=WORDS, data_prefix=dict(img=str(folder)))
    assert dataset.get_data_info(1)['tags'] == [0, 1]
    assert read_image(dataset.get_data_info(0))[1] == (9, 12)

    # the same again, then with another image
    assert not prepare_image_text(str(folder), out, WORDS, SYNONYMS)[1]
    (folder / 'd.txt').write_text('a cat')
    with pytest.raises(FileExistsError, match='made with other inputs'):
        prepare_image_text(str(folder), out, WORDS, SYNONYMS)
    prepare_image_text(str(folder), out, WORDS, SYNONYMS, overwrite=True)
    assert len(read(out)['images']) == 3
    with pytest.raises(FileExistsError, match='other parameters words'):
        prepare_image_text(str(folder), out)


def test_killed_and_resumed_is_as_undisturbed(folder, tmp_path, monkeypatch,
                                              killed, files_of):
    monkeypatch.setattr(own_captions, 'in_parts', lambda entries:
                        ((entry, ) for entry in entries))
    for name in ('undisturbed', 'out'):
        (tmp_path / name).mkdir()
    prepare_image_text(
        str(folder), tmp_path / 'undisturbed' / 'a.jsonl', WORDS)
    out = tmp_path / 'out' / 'a.jsonl'
    call = own_captions.FolderWorker.__call__

    def die_at_d(self, task):
        if task == ('d.JPG', ):
            raise killed
        return call(self, task)

    with monkeypatch.context() as patch, pytest.raises(killed):
        patch.setattr(own_captions.FolderWorker, '__call__', die_at_d)
        prepare_image_text(str(folder), out, WORDS)
    assert not files_of(out.parent)
    prepare_image_text(str(folder), out, WORDS)
    assert files_of(out.parent) == files_of(tmp_path / 'undisturbed')

    # what a killed run left is of no use when an image has changed since
    (tmp_path / 'new').mkdir()
    with monkeypatch.context() as patch, pytest.raises(killed):
        patch.setattr(own_captions.FolderWorker, '__call__', die_at_d)
        prepare_image_text(str(folder), tmp_path / 'new' / 'a.jsonl', WORDS)
    (folder / 'b.txt').write_text('a changed caption')
    prepare_image_text(str(folder), tmp_path / 'new' / 'a.jsonl', WORDS)
    assert 'a changed caption' in (tmp_path / 'new' / 'a.jsonl').read_text()


def test_a_table(folder, tmp_path):
    table = tmp_path / 'mine.csv'
    table.write_text(
        '\ufeffpicture,text,labels\r\n'
        'b.jpg,"a cat, lying",cat; dog\r\n'
        'b.jpg,"two\r\nlines",couch\r\n'
        'nowhere.jpg,a cat,\r\n'
        'c.jpg,,cat\r\n'
        'a/é.png,a cat,\r\n',
        encoding='utf-8')
    columns = Columns('picture', 'text', 'labels')
    out = tmp_path / 'out.jsonl'
    summary, _ = prepare_image_text(
        str(table), out, WORDS, images=folder, columns=columns)
    assert [json.loads(line) for line in out.read_text().splitlines()] == [
        dict(
            id=1,
            file_name='b.jpg',
            height=9,
            width=12,
            captions=['a cat, lying', 'two\r\nlines'],
            tags=['couch', 'cat']),
        # own tags are all there are, even if they are none
        dict(
            id=2,
            file_name='a/é.png',
            height=9,
            width=12,
            captions=['a cat'],
            tags=[]),
    ]
    assert summary['files']['out.jsonl']['dropped'] == {
        'empty captions': 1,
        'images without a caption': 1,
        'missing images': 1,
        'tags that are no class': 1
    }


@pytest.mark.parametrize('text, message', [
    ('', 'expected a column'),
    ('file_name,text\n', r"line 1: expected a column 'caption', got \["),
    ('file_name,caption\na.jpg\n', 'line 2: expected 2 cells, got'),
    ('file_name,caption\na.jpg,b,c\n', 'line 2: expected 2 cells, got'),
    ('file_name,caption\n ,b\n', "line 2: column 'file_name' is empty"),
    ('file_name,caption\na.jpg,"b"c\n', 'after line 1: '),
    ('file_name,caption\n', r'expected at least one readable image'),
    ('file_name,caption\nb.jpg,x\nc.jpg,y\nb.jpg,z\n',
     "'file_name' is 'b.jpg' more than once"),
])
def test_wrong_tables(text, message, folder, tmp_path):
    table = folder / 'a.csv'
    table.write_text(text)
    with pytest.raises(ValueError, match=message):
        prepare_image_text(str(table), tmp_path / 'a.json')


def test_json_lines(folder, tmp_path):
    source = folder / 'a.jsonl'
    source.write_text('\n'.join(
        map(json.dumps, [
            dict(file_name='b.jpg', caption='a cat', id=7),
            dict(file_name='c.jpg', captions=['x', 'y'], tags=['cat'], id=5),
        ])))
    out = tmp_path / 'out.jsonl'
    prepare_image_text(str(source), out, WORDS)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(s['id'], s['captions'], s['tags'])
            for s in found] == [(7, ['a cat'], ['cat']),
                                (5, ['x', 'y'], ['cat'])]
    # without classes there are no tags
    summary, _ = prepare_image_text(str(source), tmp_path / 'no.jsonl')
    assert 'tags' not in (tmp_path / 'no.jsonl').read_text()
    assert summary['files']['no.jsonl']['dropped'] == {
        'tags, as no classes are given': 1
    }


@pytest.mark.parametrize('line, error, message', [
    ('{"caption": "a"}', ValueError, "line 2: key 'file_name' is missing"),
    ('{"file_name": "", "caption": "a"}', ValueError, "'file_name' is empty"),
    ('{"file_name": 3}', ValueError, "line 2: key 'file_name' is 3"),
    ('{"file_name": "c.jpg", "captions": "a"}', ValueError,
     "line 2: key 'captions' is 'a', expected a list"),
    ('{"file_name": "c.jpg", "tags": [1]}', ValueError,
     "line 2: key 'tags' holds 1"),
    ('[]', ValueError, 'line 2: expected a JSON object'),
    ('{', ValueError, 'line 2: not valid JSON'),
    ('{"file_name": "c.jpg", "caption": "a", "id": 0}', ValueError,
     "key 'id' is 0 more than once"),
])
def test_wrong_json_lines(line, error, message, folder, tmp_path):
    (folder /
     'a.jsonl').write_text('{"file_name": "b.jpg", "caption": "a"}\n' + line)
    with pytest.raises(error, match=message):
        prepare_image_text(str(folder / 'a.jsonl'), tmp_path / 'a.json')


COCO = dict(
    images=[dict(id=4, file_name='c.jpg'),
            dict(id=3, file_name='b.jpg')],
    annotations=[
        dict(id=1, image_id=3, caption='a sofa'),
        dict(id=2, image_id=3, caption='two cats'),
        dict(id=3, image_id=4, caption='a street')
    ])


def test_json(folder, tmp_path):
    source = folder / 'a.json'
    found = {}
    for kind, content in dict(
            coco=COCO,
            # Given tags are all there are, under both of their keys.
            tagged=dict(
                images=[
                    dict(COCO['images'][0], tags=[]),
                    dict(COCO['images'][1], pos_category_ids=[5, 9])
                ],
                annotations=COCO['annotations'],
                categories=[dict(id=5, name='cat'),
                            dict(id=9, name='dog')]),
            listed=[
                dict(image='c.jpg', caption='a street'),
                dict(file_name='b.jpg', captions=['a sofa']),
                dict(image='b.jpg', caption='two cats')
            ]).items():
        source.write_text(json.dumps(content))
        out = tmp_path / f'{kind}.jsonl'
        prepare_image_text(str(source), out, WORDS, SYNONYMS)
        found[kind] = [(s['id'], s['file_name'], s['captions'], s['tags'])
                       for s in map(json.loads,
                                    out.read_text().splitlines())]
    street, cats = ['a street'], ['a sofa', 'two cats']
    both = ['couch', 'cat']
    assert found == dict(
        coco=[(4, 'c.jpg', street, []), (3, 'b.jpg', cats, both)],
        tagged=[(4, 'c.jpg', street, []), (3, 'b.jpg', cats, ['cat'])],
        listed=[(0, 'c.jpg', street, []), (1, 'b.jpg', cats, both)])
    # What was made is read again, with its classes.
    made = tmp_path / 'made.json'
    prepare_image_text(str(source), made, WORDS, SYNONYMS)
    again = tmp_path / 'again.json'
    prepare_image_text(str(made), again, WORDS, images=folder)
    assert read(again) == read(made)


@pytest.mark.parametrize('content, error, message', [
    ('{', ValueError, r'a.json: not valid JSON'),
    ('"x"', ValueError, r'expected a JSON object with "images".*or a list of '
     r'\{"file_name".*got str'),
    ('{"a.jpg": "a dog"}', ValueError,
     r"key 'images' is NoneType, expected a list; .*\"annotations\": \["),
    ('{"images": [3]}', ValueError, r'images\[0\] is 3, expected an object'),
    ('{"images": [], "annotations": [3]}', ValueError,
     "key 'annotations' holds 3, expected a list of dict"),
    ('{"images": [{"id": 1}]}', ValueError,
     r"images\[0\]: key 'file_name' is missing"),
    ('{"images": [{"id": 1, "file_name": "b.jpg"}]}', ValueError,
     "expected at least one readable .*'images without a caption': 1"),
    ('{"images": [{"id": 1, "file_name": "b.jpg"}], "annotations": '
     '[{"image_id": 2, "caption": "x"}]}', ValueError,
     "'image_id' is 2, expected one of the 1 ids under 'images'"),
    ('["a.jpg"]', ValueError,
     r"a.json: \[0\] is 'a.jpg', expected an object, \{"),
    ('[{"image": 3}]', ValueError, r"\[0\]: key 'image' is 3, expected str"),
    ('[{"caption": "x"}]', ValueError, r"\[0\]: key 'file_name' is missing"),
    ('[{"image": "b.jpg", "caption": 3}]', ValueError,
     r"\[0\]: key 'caption' is 3, expected str"),
    ('[{"image": "b.jpg"}, {"image": "b.jpg", "tags": "cat"}]', ValueError,
     r"\[1\]: key 'tags' is 'cat', expected a list"),
])
def test_wrong_json(content, error, message, folder, tmp_path):
    (folder / 'a.json').write_text(content)
    with pytest.raises(error, match=message):
        prepare_image_text(str(folder / 'a.json'), tmp_path / 'a.json')


def test_shards(folder, tmp_path, make_shard):
    shard = tmp_path / 's-0.tar'
    picture = (folder / 'b.jpg').read_bytes()
    make_shard(
        shard, {
            'x/1.jpg': picture,
            'x/1.txt': b'two cats',
            'x/2.jpg': picture,
            'x/2.json': b'{"captions": ["a"], "tags": ["couch"]}',
            'x/3.jpg': picture
        })
    out = tmp_path / 'out' / 'shards.json'
    out.parent.mkdir()
    prepare_image_text(str(tmp_path / 's-*.tar'), out, WORDS)
    assert [(i['file_name'], i['pos_category_ids'])
            for i in read(out)['images']] == [('s-0.tar/x/1.jpg', [2]),
                                              ('s-0.tar/x/2.jpg', [1])]
    dataset = ImageTextDataset(str(out), data_prefix=dict(img=str(tmp_path)))
    assert read_image(dataset.get_data_info(1))[1] == (9, 12)


def test_wrong_arguments(tmp_path):
    (tmp_path / 'empty').mkdir()
    out = tmp_path / 'a.json'
    with pytest.raises(ValueError, match='empty: expected images'):
        prepare_image_text(str(tmp_path / 'empty'), out)
    with pytest.raises(ValueError, match='expected a folder, .csv'):
        prepare_image_text(str(tmp_path / 'a.xml'), out)
    with pytest.raises(FileNotFoundError, match='a.csv: no such file'):
        prepare_image_text(str(tmp_path / 'a.csv'), out)
    with pytest.raises(ValueError, match=r"as keys, got \['sofa'\]"):
        prepare_image_text('a.csv', out, WORDS, {'sofa': ['couch']})
    with pytest.raises(ValueError, match='expected classes beside them'):
        prepare_image_text('a.csv', out, None, SYNONYMS)
    path = tmp_path / 'synonyms.json'
    for text, error in (('{', ValueError), ('[]', ValueError),
                        ('{"cat": "kitty"}', ValueError)):
        path.write_text(text)
        with pytest.raises(error, match='synonyms.json'):
            read_synonyms(path)
    path.write_text('{"cat": ["kitty"]}')
    assert read_synonyms(path) == {'cat': ['kitty']}
