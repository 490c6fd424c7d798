# Licensed under the Apache License, Version 2.0.
import pytest

from mmdet_clim.datasets.tags import TagFinder, plural_forms, split_words

WORDS = {
    1: ['cat', 'kitty'],
    2: ['dog'],
    3: ['mouse', 'computer mouse'],
    4: ['computer'],
    5: ['glass'],
    6: ['spectacles', 'glasses'],
    7: ['bat'],
    8: ['bat', 'baseball bat'],
    9: ['t-shirt'],
    10: ['café'],
    11: ['knife'],
}


@pytest.mark.parametrize(
    'caption, ids',
    [
        ('A cat.', [1]),
        # regular, irregular, and of a synonym
        ('dogs and knives, kitties', [1, 2, 11]),
        # the longest name, once: no computer
        ('two Computer Mice', [3]),
        ('a computer, mouse', [3, 4]),
        # a very word before the plural of another
        ('a glass beside glasses', [5, 6]),
        ('glasses', [6]),
        # one word of two classes names both, a longer one only its own
        ('a bat', [7, 8]),
        ('a baseball bat', [8]),
        # a phrase that means something else
        ('a hot dog and hot-dogs', []),
        ('a dog eats a hot dog', [2]),
        # hyphens, blanks and underscores
        ('T shirts, t_shirt', [9]),
        # not within a word; before an apostrophe
        ("categories; the cat's", [1]),
        # composed and decomposed accents
        ('a cafe\u0301', [10]),
        ('a cafe', []),
        # at the end, shorter than the longest name
        ('a computer', [4]),
        ('', []),
        ('🐱 ¿?', []),
    ])
def test_tags_of_a_caption(caption, ids):
    assert TagFinder(WORDS, ['hot dog'])([caption]) == ids


def test_tags_of_all_captions_are_sorted_and_stand_once():
    find = TagFinder(WORDS)
    assert find(['a dog', 'a cat', 'a cat and a dog']) == [1, 2]
    assert find([]) == []


def test_words_with_signs():
    assert split_words('C++ & Jack-o-lantern') == [
        'c', '+', '+', '&', 'jack', 'o', 'lantern'
    ]
    assert TagFinder({1: ['c++'], 2: ['c']})(['we use C++']) == [1]


def test_plurals():
    words = ['shelf', 'calf', 'policeman', 'foot', 'bus', 'sheep', 'hot dog']
    assert list(plural_forms(words)) == [
        'shelves', 'calves', 'policemen', 'feet', 'buses', 'sheep', 'hot dogs'
    ]


@pytest.mark.parametrize('words, message', [
    ({}, 'at least one class'),
    ({
        3: []
    }, 'the name of class 3, got none'),
    ({
        3: ['cat', ' -']
    }, "class 3 has ' -'"),
])
def test_wrong_words(words, message):
    with pytest.raises(ValueError, match=message):
        TagFinder(words)
