# Licensed under the Apache License, Version 2.0.
"""What a vocabulary may be, in every form in which people keep one."""
import json
import os

import pytest

from mmdet_clim.datasets.class_names import (
    LONGEST,
    split_names,
    with_files_read,
)
from mmdet_clim.datasets.vocabulary import (
    build_vocabulary,
    vocabulary_of_words,
)

COCO = dict(
    images=[],
    annotations=[],
    categories=[
        dict(id=18, name='fire truck', supercategory='vehicle'),
        dict(id=3, name='cat')
    ])
FILES = {
    # As Windows' editor writes it.
    'lines.txt':
    b'\xef\xbb\xbfcat\r\n\r\n fire  truck\r\n',
    'old_mac.txt':
    b'cat\rfire truck',
    'utf16.txt':
    'cat\r\nfire truck\r\n'.encode('utf-16'),
    'commas.txt':
    b'cat, fire truck\n',
    'points.txt':
    b'cat. fire truck.',
    'json_in.txt':
    b' ["cat", "fire truck"]',
    'darknet.names':
    b'cat\nfire truck\n',
    'without_suffix':
    b'cat\nfire truck\n',
    'list.json':
    b'["cat", "fire truck"]',
    'LIST.JSON':
    b'\xef\xbb\xbf["cat", "fire truck"]',
    'coco.json':
    json.dumps(COCO).encode(),
    'categories.json':
    json.dumps(COCO['categories']).encode(),
    'numbered.json':
    b'{"10": "fire truck", "9": "cat"}',
    'names.json':
    b'{"names": ["cat", "fire truck"]}',
    'list.yaml':
    b'- cat\n- fire truck\n',
    'data.yaml':
    b'path: x\nnc: 2\nnames: [cat, fire truck]\n',
    'numbered.yml':
    b'train: a\nnames:\n  1: fire truck\n  0: cat\n',
    'plain.csv':
    b'cat\nfire truck\n',
    'header.csv':
    b'\xef\xbb\xbf"Class Name"\r\n"cat"\r\n"fire truck"\r\n',
    'more.csv':
    b'id,name\n7,cat\n2,fire truck\n',
    'row.csv':
    b'cat, fire truck\n',
    'table.tsv':
    b'id\tname\n7\tcat\n2\tfire truck\n',
    # As code, lists and label maps have them.
    'commas_at_ends.txt':
    b'cat,\nfire truck,\n',
    'quoted.txt':
    b"'cat',\n'fire truck'\n",
    'numbered.txt':
    b'0: cat\n1: fire truck\n',
    'from_one.txt':
    b'1. cat\n2. fire truck\n',
    'blanks.txt':
    b'0 cat\n1 fire truck\n',
    'tabs.txt':
    b'0\tcat\n1\tfire truck\n',
    'bullets.txt':
    b'- cat\n- fire truck\n',
    'comment.txt':
    b'# classes\ncat\nfire truck\n',
    'semicolons.csv':
    b'id;name\n1;cat\n2;fire truck\n',
    'text_ids.json':
    b'[{"id": "10", "name": "fire truck"}, {"id": "9", "name": "cat"}]',
}


@pytest.mark.parametrize('name', FILES)
def test_files(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(FILES[name])
    for source in (file, str(file)):
        read = build_vocabulary(source)
        assert read.names == read.base_names == ('cat', 'fire truck')
    assert vocabulary_of_words([str(file)]) == read


def test_a_quoted_name_may_hold_a_comma(tmp_path):
    file = tmp_path / 'names.csv'
    file.write_text('"tench, Tinca tinca"\n"he said ""cat"""\n')
    assert build_vocabulary(file).names == ('tench, Tinca tinca',
                                            'he said "cat"')
    file = tmp_path / 'names.txt'
    file.write_text('tench, Tinca tinca\nst. bernard\n')
    assert build_vocabulary(file).names == ('tench, Tinca tinca',
                                            'st. bernard')


# A name of 10 ** 9 texts.
BOMB = b'a: &a [x, x]\n' + b''.join(
    b'%c: &%c [%s]\n' % (n + 1, n + 1, b', '.join([b'*%c' % n] * 10))
    for n in b'abcdefghi') + b'names: [{id: 1, name: *j}]\n'


@pytest.mark.parametrize('name, content, message', [
    ('empty.txt', b'\n \n', 'at least one class name'),
    ('empty.json', b'[]', 'at least one class name'),
    ('header.csv', b'name\n', 'at least one class name'),
    ('latin.txt', b'cat\ncaf\xe9',
     'latin.txt: line 2: expected text in UTF-8'),
    ('binary.txt', b'cat\0dog', 'a NUL byte'),
    ('page.txt', b'<!DOCTYPE html>\n<p>cat\n', 'page of markup'),
    ('control.txt', b'cat\nd\x07og\n', 'name 2: expected no control'),
    ('tab.txt', b'cat\tdog\nbus\n', 'name 1: expected no control'),
    ('long.txt', b'cat\n' + b'x' * (LONGEST + 1), 'at most 200 characters'),
    ('twice.txt', b'cat\ndog\ncat\n', r"given twice: \['cat'\]"),
    ('case.txt', b'cat\ndog\nCat\n', r"case and white space, got \['cat', 'C"),
    ('hidden.txt', 'cat\ndog\nc\u200bat'.encode(), 'case and white space'),
    ('wide.txt', '\uff43at\ncat'.encode(), 'case and white space'),
    ('broken.json', b'["cat",', 'not valid JSON'),
    ('number.json', b'["cat", 7]', 'got 7 as number 2'),
    ('other.json', b'{"info": 1}', r"got the keys \['info'\]"),
    ('nameless.json', b'[{"id": 1}]',
     r"categories\[0\]: key 'name' is missing"),
    ('ids.json', b'[{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]',
     r"categories\[1\]: key 'id' is 1, expected one that no other"),
    ('bomb.yaml', BOMB, r"categories\[0\]: key 'name' is \[\["),
    ('key.yaml', b'- {id: 1, 2: 3}', "key 'name' is missing, it has "),
    ('deep.json', b'[' * 100000, 'nested too deeply'),
    ('broken.yaml', b'names: [cat', 'not valid YAML'),
    ('code.yaml', b'names: !!python/object/apply:os.system [ls]',
     'not valid YAML'),
    ('nc.yaml', b'nc: 3\nnames: [cat, dog]', 'nc is 3'),
    ('no.yaml', b'names: [cat, no]', 'got False as number 2; YAML'),
    ('two.csv', b'1,cat\n2,dog\n', 'expected one column'),
    ('ragged.csv', b'name\ncat\ntench, Tinca\n', 'row 2 has 2'),
    ('quote.csv', b'"cat\ndog\n', 'not a valid table'),
    ('twice.json', b'{"0": "cat", "0": "dog"}', "duplicate key '0'"),
    ('twice.yaml', b'0: cat\n0: dog\n', 'duplicate key'),
    ('itself.yaml', b'&a\nnames: *a\n', 'expected a list of names'),
    ('code.txt', b'CLASSES = (\n"cat",\n"dog",\n)\n', 'not closed'),
    ('map.txt', b'item {\n  id: 1\n  name: "cat"\n}\n', 'not closed'),
    ('quote.tsv', b'id\tname\n1\t"cat\n2\tdog"\n', 'not closed'),
    ('weights.pth', b'cat\n', 'class names cannot be read from'),
    ('config.py', b'names = ["cat"]\n', 'class names cannot be read from'),
])
def test_files_that_are_none(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        build_vocabulary(str(file))
    assert name in str(error.value) and '\n' not in str(error.value)


def test_names_that_look_like_numbered_lines(tmp_path):
    for text in ('1 euro\n2 euro', '3. street\n4. street', '0 a\n2 b',
                 'bat (animal)\nmonitor, screen'):
        (tmp_path / 'a.txt').write_text(text)
        assert build_vocabulary(tmp_path / 'a.txt').names == tuple(
            text.split('\n'))


def test_files_that_would_fill_the_memory(tmp_path):
    with open(tmp_path / 'a.txt', 'wb') as file:
        file.truncate(1 << 36)
    with pytest.raises(ValueError, match='longer than'):
        build_vocabulary(tmp_path / 'a.txt')
    # Each list is nine times the one before: 3 GB of text.
    lines = ['a: &a [x, x, x, x, x, x, x, x, x]']
    for letter, before in zip('bcdefghi', 'abcdefgh'):
        lines.append(f'{letter}: &{letter} [{", ".join(["*" + before] * 9)}]')
    (tmp_path / 'a.yaml').write_text('\n'.join([*lines, 'names: *i']))
    with pytest.raises(ValueError, match='got list as number 1$'):
        build_vocabulary(tmp_path / 'a.yaml')


@pytest.mark.parametrize('text', [
    '["cat", "fire truck"]', "['cat', 'fire truck']", '[cat, fire truck]',
    '{"names": ["cat", "fire truck"]}', '{0: cat, 1: fire truck}',
    '"cat", "fire truck"', 'cat|fire truck', 'cat\tfire truck',
    'cat\uff0cfire truck', 'cat\u3001fire truck'
])
def test_lists_and_separators_of_others(text):
    assert build_vocabulary(text).names == ('cat', 'fire truck')
    assert vocabulary_of_words([text]).names == ('cat', 'fire truck')


def test_what_is_no_regular_file(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    for path in (tmp_path, tmp_path / 'pipe'):
        with pytest.raises(ValueError, match='no regular file'):
            build_vocabulary(str(path))


@pytest.mark.parametrize('text', [
    'names.txt', 'My Names.JSON', 'data/classes', './cat', '/cat dog/x',
    'photo.jpg', 'C:\\names', '~/none'
])
def test_a_path_without_a_file(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match='does not exist'):
        build_vocabulary(text)


def test_a_folder_named_as_a_class_is_no_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'cat').mkdir()
    assert build_vocabulary('cat').names == ('cat', )
    assert build_vocabulary('cat, dog').names == ('cat', 'dog')


@pytest.mark.parametrize('text, names', [
    ('cat', ['cat']),
    ('cat. dog.', ['cat', 'dog']),
    ('cat . dog .', ['cat', 'dog']),
    ('cat . fire truck', ['cat', 'fire truck']),
    ('cat.dog.', ['cat', 'dog']),
    ('cat, dog', ['cat', 'dog']),
    ('cat;dog,', ['cat', 'dog']),
    ('cat\r\ndog\nbus', ['cat', 'dog', 'bus']),
    ('U.S. mail box, cat', ['U.S. mail box', 'cat']),
    ('U.S.', ['U.S.']),
    (' . ', []),
])
def test_names_in_one_text(text, names):
    assert split_names(text) == names
    if names:
        assert list(build_vocabulary(text).names) == names
        assert list(vocabulary_of_words([text]).names) == names


def test_a_long_text_is_no_path():
    names = [f'thing {number}' for number in range(2000)]
    assert list(build_vocabulary(' . '.join(names)).names) == names


@pytest.mark.parametrize('words, names', [
    (['cat', 'fire truck'], ['cat', 'fire truck']),
    (['cat,', 'dog'], ['cat', 'dog']),
    (['cat', '.', 'dog', '.'], ['cat', 'dog']),
    (['cat.', 'dog.'], ['cat', 'dog']),
    (['st. bernard', 'cat'], ['st. bernard', 'cat']),
    (['cat, dog', 'bus'], ['cat', 'dog', 'bus']),
    (["['cat',", "'dog']"], ['cat', 'dog']),
    (['"cat"', '"dog"'], ['cat', 'dog']),
])
def test_words_of_a_command_line(words, names):
    assert list(vocabulary_of_words(words).names) == names


def test_texts_and_files_of_a_command_line(tmp_path):
    """Sentences stay as they are, with commas and points."""
    (tmp_path / 'names.txt').write_text('dog\nbus\n')
    assert with_files_read(
        ['a cat, on a mat.',
         str(tmp_path / 'names.txt'),
         'cat']) == ['a cat, on a mat.', 'dog', 'bus', 'cat']
    with pytest.raises(FileNotFoundError, match='absent.txt'):
        with_files_read(['cat', 'absent.txt'])


@pytest.mark.parametrize('source, message', [
    (['cat. dog.'], 'is several names'),
    (['cat . dog', 'bus'], 'is several names'),
    (['cat, dog'], 'is several names'),
    (['names.txt'], 'is the name of a file'),
    ('cat, names.txt', 'is the name of a file'),
    ('cat. dog', 'may|expected names with commas'),
    ({'cat', 'dog'}, 'got set'),
    (['cat', None], 'non-empty string, got None'),
    ('', 'at least one'),
    ('\u200b', 'non-empty'),
    ('cat\0', 'control characters'),
    (7, 'got int'),
])
def test_sources_that_are_none(source, message):
    with pytest.raises(ValueError, match=message):
        build_vocabulary(source)


def test_other_sources():
    names = ['tench, Tinca tinca', 'U.S. mail', ' tv/monitor']
    assert build_vocabulary(names).names == ('tench, Tinca tinca', 'U.S. mail',
                                             'tv/monitor')
    assert build_vocabulary({1: 'dog', 0: 'cat'}).names == ('cat', 'dog')
    split = build_vocabulary(dict(names=['cat ', 'dog'], base_names=['cat ']))
    assert split.is_base == (True, False)
    assert len(build_vocabulary('mmdet_clim.OVCocoDataset')) == 65
