# Licensed under the Apache License, Version 2.0.
"""One's own captioned images from every kind of source."""
import json
import os

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
    (root / 'e.txt').write_bytes(b'caf\xe9')
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
        'images whose text file is not UTF-8': 1,
        'texts without an image': 1
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
    call = own_captions.EntryWorker.__call__

    def die_at_d(self, task):
        if task[0].file_name == 'd.JPG':
            raise killed
        return call(self, task)

    with monkeypatch.context() as patch, pytest.raises(killed):
        patch.setattr(own_captions.EntryWorker, '__call__', die_at_d)
        prepare_image_text(str(folder), out, WORDS)
    assert not files_of(out.parent)
    prepare_image_text(str(folder), out, WORDS)
    assert files_of(out.parent) == files_of(tmp_path / 'undisturbed')

    # what a killed run left is of no use when an image has changed since
    (tmp_path / 'new').mkdir()
    with monkeypatch.context() as patch, pytest.raises(killed):
        patch.setattr(own_captions.EntryWorker, '__call__', die_at_d)
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
            captions=['a cat, lying', 'two\nlines'],
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
        'tags that are not classes': 1
    }


@pytest.mark.parametrize('text, message', [
    ('', 'expected a column'),
    ('file_name,text\n', r"line 1: expected a column 'caption', got \["),
    ('file_name,caption\na.jpg\n', 'line 2: expected 2 cells, got'),
    ('file_name,caption\na.jpg,b,c\n', 'line 2: expected 2 cells, got'),
    ('file_name,caption\n ,b\n', "line 2: column 'file_name' is empty"),
    ('file_name,caption\na.jpg,"b"c\n', 'after line 2: '),
    ('file_name,caption,caption\na.jpg,b,c\n', "one column 'caption'"),
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
    ('{"file_name": "c.jpg", "captions": {"en": "a"}}', ValueError,
     "line 2: key 'captions' is {'en': 'a'}, expected a text or a list"),
    ('{"file_name": "c.jpg", "tags": [1]}', ValueError,
     "line 2: key 'tags' contains 1"),
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
     r'annotations\[0\] is 3, expected an object'),
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
     r"\[0\]: key 'caption' is 3, expected a text or a list of texts"),
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
    with pytest.raises(ValueError, match='expected a vocabulary too'):
        prepare_image_text('a.csv', out, None, SYNONYMS)
    path = tmp_path / 'synonyms.json'
    for text, error in (('{', ValueError), ('[]', ValueError),
                        ('{"cat": "kitty"}', ValueError)):
        path.write_text(text)
        with pytest.raises(error, match='synonyms.json'):
            read_synonyms(path)
    path.write_text('{"cat": ["kitty"]}')
    assert read_synonyms(path) == {'cat': ['kitty']}


def test_links_suffixes_and_strays(folder, tmp_path, write_picture):
    """All is taken, or counted by its reason; nothing is a reason to stop."""
    for name in ('README.txt', 'e.txt'):
        (folder / name).unlink()
    elsewhere = tmp_path / 'elsewhere'
    write_picture(elsewhere / 'deep' / 'x.png', 12, 9)
    (elsewhere / 'deep' / 'x.TXT').write_text('a cat')
    (elsewhere / 'deep' / 'back').symlink_to(elsewhere)
    (folder / 'linked').symlink_to(elsewhere)
    (folder / 'linked again').symlink_to(elsewhere)
    (folder / 'itself').symlink_to(folder)
    (folder / 'f.jpg').symlink_to(folder / 'b.jpg')
    (folder / 'f.txt').symlink_to(folder / 'b.txt')
    (folder / 'gone.jpg').symlink_to(tmp_path / 'nothing.jpg')
    (folder / 'gone.txt').write_text('a cat')
    (folder / 'g.jpg').write_bytes((folder / 'b.jpg').read_bytes())
    (folder / 'g.txt').symlink_to(tmp_path / 'nothing.txt')
    for name in ('h.heic', 'h.txt', 'i.SVG', 'orphan.txt', 'Thumbs.db'):
        (folder / name).write_text('a cat')
    (folder / 'j.jfif').write_bytes((folder / 'b.jpg').read_bytes())
    (folder / 'j.Txt').write_bytes('a sofa'.encode('utf-16'))
    (folder / 'b.TXT').write_text('not this one')
    with open(os.fsencode(folder) + b'/\xe9.jpg', 'wb') as file:
        file.write((folder / 'b.jpg').read_bytes())
    with open(os.fsencode(folder) + b'/\xe9.txt', 'wb') as file:
        file.write(b'a cat')
    out = tmp_path / 'out.jsonl'
    summary, _ = prepare_image_text(str(folder), out, WORDS, SYNONYMS)
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [image['file_name'] for image in found
            ] == ['a/é.png', 'b.jpg', 'f.jpg', 'j.jfif', 'linked/deep/x.png']
    assert found[3]['captions'] == ['a sofa']
    assert summary['files']['out.jsonl']['dropped'] == {
        'images of a format that is not read (.heic)': 1,
        'images of a format that is not read (.svg)': 1,
        'images whose name is not UTF-8': 1,
        'images without a caption': 1,
        # d.JPG, e.jpg, g.jpg
        'images without a text file': 3,
        'missing images': 1,
        # b.TXT
        'second texts of an image': 1,
        'texts without an image': 1,
    }
    ImageTextDataset(str(out), vocabulary=WORDS)


def rows_of(out):
    return [(image['file_name'], image['captions'])
            for image in map(json.loads,
                             out.read_text().splitlines())]


@pytest.mark.parametrize('cell, caption', [
    ('"hello" she said', '"hello" she said'),
    ('"a cat', '"a cat'),
    ('a "cat"', 'a "cat"'),
    ('"a ""big"" cat"', 'a "big" cat'),
    ('"', '"'),
    ("'a cat", "'a cat"),
    ('a cat, \u2028 a dog', 'a cat, \u2028 a dog'),
])
@pytest.mark.parametrize('end', ['\n', '\r\n'])
def test_a_tab_separated_table_has_no_quotes(folder, tmp_path, cell, caption,
                                             end):
    table = tmp_path / 'mine.tsv'
    rows = ['file_name\tcaption', f'b.jpg\t{cell}', 'c.jpg\ta dog', '']
    table.write_bytes(end.join(rows).encode())
    out = tmp_path / 'out.jsonl'
    prepare_image_text(str(table), out, images=folder)
    assert rows_of(out) == [('b.jpg', [caption]), ('c.jpg', ['a dog'])]


def test_a_quoted_cell_that_swallows_rows(folder, tmp_path):
    """The quotes of a later row close it, so that no quote is left open."""
    table = tmp_path / 'mine.csv'
    out = tmp_path / 'out.jsonl'
    table.write_text('file_name,caption\nb.jpg,"Hello\nc.jpg,a dog"\n')
    with pytest.raises(ValueError, match='mine.csv: line 3: .*further rows'):
        prepare_image_text(str(table), out, images=folder)
    # Also where the caption comes first, and rows end with the image.
    table.write_text('caption,file_name\n"Cat,b.jpg\nDog,c.jpg\nTV 5",d.jpg\n')
    with pytest.raises(ValueError, match='mine.csv: line 4: .*further rows'):
        prepare_image_text(str(table), out, images=folder)
    # A caption of two lines is one.
    table.write_text('file_name,caption\nb.jpg,"Hello,\nthere"\nc.jpg,a dog\n')
    prepare_image_text(str(table), out, images=folder)
    assert rows_of(out) == [('b.jpg', ['Hello,\nthere']), ('c.jpg', ['a dog'])]


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16', 'utf-16-le'])
@pytest.mark.parametrize('name, text', [
    ('a.csv', 'file_name,caption\nb.jpg,a café\n'),
    ('a.tsv', 'file_name\tcaption\nb.jpg\ta café\n'),
    ('a.JSON', '[{"file_name": "b.jpg", "caption": "a café"}]'),
    ('a.jsonl', '{"file_name": "b.jpg", "caption": "a café"}\n'),
])
def test_other_encodings(folder, tmp_path, encoding, name, text):
    source = tmp_path / name
    source.write_bytes(text.encode(encoding))
    prepare_image_text(str(source), tmp_path / 'out.jsonl', images=folder)
    assert rows_of(tmp_path / 'out.jsonl') == [('b.jpg', ['a café'])]
    # Latin-1 is told from them.
    source.write_bytes(text.replace('\n', '\r\n').encode('latin-1'))
    line = 2 if 'sv' in name else 1
    with pytest.raises(
            ValueError, match=f'{name}: line {line}: .*the byte e9'):
        prepare_image_text(str(source), tmp_path / 'new.jsonl', images=folder)


def test_broken_characters_are_left_out_and_counted(folder, tmp_path):
    source = tmp_path / 'a.json'
    source.write_text(
        json.dumps([
            dict(file_name='b.jpg', caption='a dog \ud83d'),
            dict(file_name='c.jpg', caption='\udc00'),
            dict(file_name='c\ud83d.jpg', caption='a cat'),
            dict(file_name='d.JPG', caption='a\0 cat'),
            dict(file_name='e.jpg', caption='\U0001f600'),
        ]))
    out = tmp_path / 'out.json'
    summary, _ = prepare_image_text(str(source), out, images=folder)
    assert [i['captions'] for i in read(out)['images']] == [['a dog'],
                                                            ['a cat'],
                                                            ['\U0001f600']]
    assert summary['files']['out.json']['dropped'] == {
        'broken characters in captions': 3,
        'empty captions': 1,
        'images without a caption': 1,
        'images whose name is not UTF-8': 1
    }


def test_images_that_came_later_are_looked_for(folder, tmp_path,
                                               write_picture):
    source, out = tmp_path / 'a.csv', tmp_path / 'out.jsonl'
    source.write_text('file_name,caption\nb.jpg,a cat\nlater.jpg,a sofa\n')
    prepare_image_text(str(source), out, images=folder)
    assert not prepare_image_text(str(source), out, images=folder)[1]
    # One that no row names changes nothing.
    write_picture(folder / 'other.jpg', 12, 9)
    assert not prepare_image_text(str(source), out, images=folder)[1]
    write_picture(folder / 'later.jpg', 12, 9)
    with pytest.raises(FileExistsError, match='with other inputs images of'):
        prepare_image_text(str(source), out, images=folder)
    prepare_image_text(str(source), out, images=folder, overwrite=True)
    assert len(rows_of(out)) == 2


def test_a_shard_with_members_that_cannot_be_read(folder, tmp_path,
                                                  make_shard):
    picture = (folder / 'b.jpg').read_bytes()
    make_shard(
        tmp_path / 'a.tar', {
            '0.jpg': picture,
            '0.txt': 'a cat'.encode('utf-16'),
            '1.jpg': picture,
            '1.txt': b'caf\xe9',
            '2.jpg': picture,
            '2.json': b'{"caption": 3}',
            '3.jpg': picture,
            '3.json': b'{"caption": "a dog", "tags": 3}',
            '4.txt': b'a cat',
            '5.heic': picture,
            '5.txt': b'a cat',
            '\udce9.jpg': picture,
            '\udce9.txt': b'a cat',
            '6.jpg': picture,
            '6.json': b'{"caption": "cut \\ud83d"}',
        })
    out = tmp_path / 'out.jsonl'
    summary, _ = prepare_image_text(str(tmp_path / 'a.tar'), out)
    assert rows_of(out) == [('a.tar/0.jpg', ['a cat']),
                            ('a.tar/6.jpg', ['cut'])]
    assert summary['files']['out.jsonl']['dropped'] == {
        'broken characters in captions': 1,
        'images of a format that is not read (.heic)': 1,
        'images whose name is not UTF-8': 1,
        'images whose text or JSON cannot be read': 3,
        'texts without an image': 1
    }
    dataset = ImageTextDataset(str(tmp_path / 'a.tar'))
    assert [dataset.get_data_info(n)['captions']
            for n in range(len(dataset))] == [['a cat'], ['cut']]
