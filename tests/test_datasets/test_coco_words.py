# Licensed under the Apache License, Version 2.0.
import pytest

from mmdet_clim.datasets import OVCocoDataset
from mmdet_clim.datasets.coco_words import (
    _FURTHER_WORDS,
    OTHER_PHRASES,
    SCENE_SYNONYMS,
    coco_words,
)
from mmdet_clim.datasets.tags import TagFinder, split_words

CLASSES = OVCocoDataset.METAINFO['classes']


def test_every_key_is_a_class_and_no_word_has_two():
    assert set(SCENE_SYNONYMS) | set(_FURTHER_WORDS) <= set(CLASSES)
    owner = {}
    for name in CLASSES:
        words = coco_words(name)
        assert words[0] == name and len(set(words)) == len(words)
        for word in words:
            assert owner.setdefault(tuple(split_words(word)), name) == name
    assert not {tuple(split_words(p)) for p in OTHER_PHRASES} & set(owner)


@pytest.mark.parametrize('caption, names', [
    ('A man rides a dirt bike past two policemen.', 'person motorcycle'),
    ('children wait at a bus stop', 'person'),
    ('a bus and two bus stops near a taxi', 'bus car'),
    ('a paper bag and a leather purse', 'handbag'),
    ('seagulls above sailboats', 'bird boat'),
    ('a carrot cake on a book shelf', 'cake'),
    ('three TVs, a remote control, a fridge', 'tv remote refrigerator'),
])
def test_captions_of_photos(caption, names):
    find = TagFinder({
        i: coco_words(n)
        for i, n in enumerate(CLASSES)
    }, OTHER_PHRASES)
    assert {CLASSES[i] for i in find([caption])} == set(names.split())
