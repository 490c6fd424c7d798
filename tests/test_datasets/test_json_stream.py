# Licensed under the Apache License, Version 2.0.
"""JSON on a moving window, against json.loads of the whole."""
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_clim.datasets import json_stream
from mmdet_clim.datasets.json_stream import JSONObject

VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(),
              st.floats(allow_nan=False), st.text(max_size=8)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=12)


@pytest.fixture(autouse=True, params=[1, 7, 1 << 20])
def block(request, monkeypatch):
    """Of one character, of few, and of more than all."""
    monkeypatch.setattr(json_stream, '_BLOCK', request.param)
    return request.param


def content_of(path):
    content = {}
    for key, number, value in JSONObject(path).members():
        if number is None:
            content[key] = value
        else:
            assert number == len(content[key])
            content[key].append(value)
    return content


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    st.dictionaries(st.text(max_size=4), VALUES, max_size=4),
    st.sampled_from([None, 1]), st.booleans(),
    st.sampled_from(['utf-8', 'utf-8-sig', 'utf-16']))
def test_it_is_what_json_reads(tmp_path_factory, content, indent, ascii_only,
                               encoding):
    text = json.dumps(content, indent=indent, ensure_ascii=ascii_only)
    path = tmp_path_factory.getbasetemp() / 'stream.json'
    path.write_bytes(text.encode(encoding, 'surrogatepass'))
    if not ascii_only and '\0' in str(content):
        return
    assert content_of(path) == content


@pytest.mark.parametrize('text, message', [
    ('{"a": [1, 2}', "line 1: expected ',' or ']', got '}'"),
    ('{"a": [1,\n\n 2 3]}', 'line 3'),
    ('{"a": 1,}', 'line 1: expected a key in quotes'),
    ('{"a" 1}', "line 1: expected ':'"),
    ('{"a": 1} x', 'line 1: expected nothing after'),
    ('{"a": 1, "a": 2}', "duplicate key 'a'"),
    ('{"a": [1', 'line 1'),
    ('{"a": [tru]}', 'line 1: Expecting value'),
    ('{"a": "b\n"}', 'line 1: Invalid control character'),
    ('{"a": "b', 'Unterminated string'),
    ('{\n"a": [{"b": "c"}, {"b" "c"}]}', 'line 2: Expecting'),
    ('{', 'line 1: expected a key in quotes'),
    ('{"a": {"b": "\0"}}', 'line 1: expected text in UTF-8, got a NUL'),
    ('[1]', 'expected a JSON object, got list'),
    ('', 'expected a JSON object, got nothing'),
    ('{"a": ' + '[' * 10**5, 'nested too deeply'),
])
def test_what_is_none_names_file_and_line(tmp_path, text, message, block):
    if block < 10 and len(text) > 1000:
        pytest.skip('as slow as the square of its length')
    path = tmp_path / 'a.json'
    path.write_text(text)
    with pytest.raises(ValueError) as caught:
        content_of(path)
    assert message in str(caught.value) and 'a.json: ' in str(caught.value)


def test_bytes_of_another_encoding_name_their_line(tmp_path):
    path = tmp_path / 'a.json'
    path.write_bytes('{"a":\n "café"}'.encode('latin-1'))
    with pytest.raises(ValueError, match='a.json: line 2: .*the byte e9'):
        content_of(path)
