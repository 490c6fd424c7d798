# Licensed under the Apache License, Version 2.0.
"""Text and JSON files of any encoding."""
import re

import pytest

from mmdet_clim.datasets.json_files import read_json
from mmdet_clim.datasets.text_files import (
    is_text,
    read_lines,
    read_text,
    whole_characters,
)

TEXT = 'a cafe\u0301\n\u2028 line\n\n\U0001f600 end'
LINES = ['a cafe\u0301', '\u2028 line', '', '\U0001f600 end']


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize(
    'encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-be', 'utf-32'])
def test_marks_and_ends_of_lines(tmp_path, encoding, end):
    file = tmp_path / 'a.txt'
    text = TEXT.replace('\n', end)
    if encoding == 'utf-16-be':
        text = '\ufeff' + text
    file.write_bytes(text.encode(encoding))
    assert read_text(file) == TEXT
    assert list(read_lines(file)) == list(enumerate(LINES, 1))


@pytest.mark.parametrize('encoding', ['utf-16-le', 'utf-16-be'])
def test_utf_16_without_a_mark(tmp_path, encoding):
    file = tmp_path / 'a.txt'
    file.write_bytes('a dog\na cat\n'.encode(encoding))
    assert read_text(file) == 'a dog\na cat\n'
    assert [line for _, line in read_lines(file)][:2] == ['a dog', 'a cat']


@pytest.mark.parametrize('text', ['', '\n', 'a', '\r', 'a\n\n'])
def test_short_files(tmp_path, text):
    file = tmp_path / 'a.txt'
    file.write_bytes(text.encode())
    plain = text.replace('\r', '\n')
    assert read_text(file) == plain
    assert [line for _, line in read_lines(file)] == plain.splitlines()


def test_an_end_of_line_between_two_blocks(tmp_path):
    file = tmp_path / 'a.txt'
    first = 'x' * ((1 << 16) - 1)
    file.write_bytes(f'{first}\r\ny\r\n'.encode())
    assert [line for _, line in read_lines(file)] == [first, 'y']


@pytest.mark.parametrize('data, line', [
    (b'a\nb\ncaf\xe9\n', 3),
    (b'\xff', 1),
    (b'a\r\n\x80', 2),
    (b'\xff\xfea\0\n\0\0\xd8', 2),
    (b'a\nb\0c\n', 2),
])
def test_no_text_is_named_by_file_and_line(tmp_path, data, line):
    file = tmp_path / 'a.txt'
    file.write_bytes(data)
    message = f'{re.escape(str(file))}: line {line}: expected text in UTF'
    with pytest.raises(ValueError, match=message):
        read_text(file)
    with pytest.raises(ValueError, match=message):
        list(read_lines(file))


def test_halves_of_characters():
    assert whole_characters('a dog \ud83d') == 'a dog '
    assert whole_characters('a \U0001f600\0') == 'a \U0001f600'
    assert not is_text('a\udcff.jpg') and is_text('\u00e9.jpg')


@pytest.mark.parametrize('encoding', ['utf-8-sig', 'utf-16'])
def test_json_of_other_encodings(tmp_path, encoding):
    file = tmp_path / 'a.json'
    file.write_bytes('{"a": ["\u00e9"]}'.encode(encoding))
    assert read_json(file) == {'a': ['\u00e9']}


@pytest.mark.parametrize('data, message', [
    (b'{"a": "\xe9"}', 'line 1: expected text in UTF-8'),
    (b'{"a": 1', 'not valid JSON'),
    (b'[' * 100_000, 'nested too deeply'),
    (b'{"a":' * 100_000, 'nested too deeply'),
    (b'', 'not valid JSON'),
])
def test_bad_json_is_named(tmp_path, data, message):
    file = tmp_path / 'a.json'
    file.write_bytes(data)
    with pytest.raises(ValueError, match=message) as raised:
        read_json(file)
    assert str(file) in str(raised.value)
