# Licensed under the Apache License, Version 2.0.
"""Annotation files of any content: a consistent result or an error."""
import copy
import importlib.util
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmdet_clim.datasets.coco_annotations import CocoChecker, check_coco

QUICK = settings(max_examples=80, deadline=None, derandomize=True)
IDS = st.integers(0, 10**6)
SIDES = st.integers(30, 4000)
PLACES = st.one_of(st.integers(0, 19), st.floats(0, 19))
EXTENTS = st.one_of(st.integers(1, 10), st.floats(.1, 10))
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(),
              st.text(max_size=5), st.sampled_from(['1', '2.5', '\ud83d'])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6)


@st.composite
def files(draw):
    """A file that is right; boxes lie within 29 pixels of the corner."""
    ids = draw(st.lists(IDS, min_size=2, max_size=4, unique=True))
    names = draw(
        st.lists(
            st.text('abcé ', min_size=1,
                    max_size=4).map(str.strip).filter(bool),
            min_size=1,
            max_size=3,
            unique=True))
    boxes = draw(
        st.lists(
            st.tuples(PLACES, PLACES, EXTENTS, EXTENTS),
            min_size=1,
            max_size=6))
    numbers = draw(
        st.lists(IDS, min_size=len(boxes), max_size=len(boxes), unique=True))
    # Fractions of the image are another matter.
    boxes[0] = (2, 2, *boxes[0][2:])
    return dict(
        images=[
            dict(
                id=i,
                file_name=f'{i}.jpg',
                width=draw(SIDES),
                height=draw(SIDES)) for i in ids
        ],
        categories=[dict(id=7 * n, name=name) for n, name in enumerate(names)],
        annotations=[
            dict(
                id=number,
                image_id=draw(st.sampled_from(ids)),
                category_id=7 * draw(st.integers(0,
                                                 len(names) - 1)),
                bbox=list(box),
                area=box[2] * box[3],
                iscrowd=draw(st.sampled_from([0, 1])))
            for number, box in zip(numbers, boxes)
        ])


def check(content, clip=True):
    return check_coco(content, CocoChecker('x.json', clip=clip))


@QUICK
@given(files(), st.booleans())
def test_a_file_that_is_right_is_left_as_it_is(content, clip):
    assert check(copy.deepcopy(content), clip) == content


@QUICK
@given(files(), st.data())
def test_the_same_in_other_forms_is_the_same(content, data):
    """Each number in another form, entries in another order, no areas."""
    forms = st.sampled_from(
        [lambda n: n, str, float, lambda n: f'{n:09d}', lambda n: f' {n}'])
    other = copy.deepcopy(content)
    for key in ('id', 'image_id', 'category_id'):
        form = data.draw(forms)
        for entry in other['annotations']:
            entry[key] = form(entry[key])
    form = data.draw(forms)
    for entry in other['images']:
        entry['id'] = form(entry['id'])
    for entry in other['annotations']:
        if data.draw(st.booleans()):
            entry['bbox'] = list(map(repr, entry['bbox']))
        if data.draw(st.booleans()):
            del entry['area']
        if data.draw(st.booleans()) and not entry['iscrowd']:
            del entry['iscrowd']
    other['annotations'] = data.draw(st.permutations(other['annotations']))
    found = check(other)
    found['annotations'].sort(key=lambda entry: entry['id'])
    content['annotations'].sort(key=lambda entry: entry['id'])
    assert found == content


def somewhere(content, data):
    """The parent of a random place, and the key or number of the place."""
    while True:
        if isinstance(content, dict):
            key = data.draw(st.sampled_from(sorted(content)))
        else:
            key = data.draw(st.integers(0, len(content) - 1))
        inner = content[key]
        if not isinstance(inner, (dict, list)) or not inner or not data.draw(
                st.booleans()):
            return content, key
        content = inner


@settings(QUICK, max_examples=200)
@given(files(), st.data(), st.booleans())
def test_anything_anywhere_is_a_result_or_an_error(content, data, clip):
    for _ in range(data.draw(st.integers(1, 2))):
        parent, key = somewhere(content, data)
        parent[key] = data.draw(ANYTHING)
    try:
        found = check(content, clip)
    except ValueError as error:
        assert str(error).startswith('x.json: ')
        assert '\n' not in str(error)
        return
    sizes = {i['id']: (i['width'], i['height']) for i in found['images']}
    categories = {c['id'] for c in found['categories']}
    ids = {a['id'] for a in found['annotations']}
    assert len(sizes) == len(found['images'])
    assert len(ids) == len(found['annotations'])
    assert len({c['name'] for c in found['categories']}) == len(categories)
    for entry in found['annotations']:
        assert entry['category_id'] in categories
        assert entry['iscrowd'] in (0, 1) and entry['area'] > 0
        x, y, width, height = entry['bbox']
        assert width > 0 and height > 0
        across, down = sizes[entry['image_id']]
        if clip:
            assert -.021 < x < x + width < across + .021
            assert -.021 < y < y + height < down + .021
    # It is as a file would hold it.
    assert check(json.loads(json.dumps(found)), clip) == found


@pytest.fixture(scope='module')
def fuzz(repository):
    spec = importlib.util.spec_from_file_location(
        'fuzz_data', repository / 'benchmarks' / 'fuzz_data.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.fuzz


def test_a_few_inputs_of_the_fuzzer(fuzz):
    ends = fuzz(200, seed=1)
    assert sum(ends.values()) == 200
    assert {end
            for _, end in ends
            } == {'a result', 'repaired or left out', 'refused'}
