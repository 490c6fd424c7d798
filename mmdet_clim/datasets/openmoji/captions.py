# Licensed under the Apache License, Version 2.0.
"""English captions of a scene, and the tags that they give."""
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ..package_tables import table_beside
from ..tags import TagFinder, english
from .classes import SceneClass
from .scenes import Scene, SceneObject

#: How often a caption calls an object by another name than its class.
SYNONYM_RATE = 0.12
#: How often a drawing with a noun of its own ('poodle') is called by it.
NOUN_RATE = 0.3
#: How often a caption leaves one of several objects out.
LEAVE_OUT_RATE = 0.25

_TABLE = table_beside(__file__)


def singular(noun: str) -> str:
    """What stands after 'a' for one: 'pair of skis' for 'skis'.

    Args:
        noun (str): A class name or a synonym.
    """
    measure = _TABLE['measures'].get(noun)
    return f'{measure} of {noun}' if measure else noun


@lru_cache(maxsize=None)
def plural(noun: str) -> str:
    """The plural of an English noun."""
    if noun in _TABLE['plurals']:
        return _TABLE['plurals'][noun]
    measure, of, thing = singular(noun).partition(' of ')
    if of:
        return f'{plural(measure)} of {thing}'
    return english().plural_noun(noun)


def with_article(phrase: str) -> str:
    """Put 'a' or 'an' before a phrase."""
    return english().a(phrase)


def _noun(rng: np.random.Generator, obj: SceneObject) -> str:
    """What a caption calls an object."""
    if obj.glyph.noun and rng.random() < NOUN_RATE:
        return obj.glyph.noun
    if obj.cls.synonyms and rng.random() < SYNONYM_RATE:
        return obj.cls.synonyms[rng.integers(len(obj.cls.synonyms))]
    return obj.cls.name


def _phrase(rng: np.random.Generator, group: Sequence[SceneObject],
            image_area: int) -> str:
    """Noun phrase of the objects of one class."""
    obj = group[0]
    noun = _noun(rng, obj)
    if len(group) > 1:
        count = english().number_to_words(len(group))
        if rng.random() < 0.15:
            count = 'some'
        return f'{count} {plural(noun)}'
    adjectives = []
    x, y, width, height = obj.box
    share = width * height / image_area
    if rng.random() < 0.25 and (share < 0.04 or share > 0.2):
        small = ('small', 'little', 'tiny')
        large = ('large', 'big', 'huge')
        adjectives.append((small if share < 0.04 else large)[rng.integers(3)])
    if rng.random() < 0.3 and obj.colour and obj.cls.name != 'person':
        adjectives.append(obj.colour)
    return with_article(' '.join([*adjectives, singular(noun)]))


def _relation(rng: np.random.Generator, first: SceneObject,
              second: SceneObject) -> str:
    """Where the first object is, seen from the second."""
    (x1, y1, w1, h1), (x2, y2, w2, h2) = first.box, second.box
    dx = (x1 + w1 / 2) - (x2 + w2 / 2)
    dy = (y1 + h1 / 2) - (y2 + h2 / 2)
    if rng.random() < 0.25:
        return ('next to', 'near', 'beside', 'together with')[rng.integers(4)]
    if abs(dx) > abs(dy):
        return 'to the left of' if dx < 0 else 'to the right of'
    return 'above' if dy < 0 else 'below'


def _place_words(obj: SceneObject) -> str:
    """In which ninth of the image the centre of an object is."""
    height, width = obj.mask.shape
    x, y, w, h = obj.box
    column = min(int(3 * (x + w / 2) / width), 2)
    row = min(int(3 * (y + h / 2) / height), 2)
    return _TABLE['places'][row][column]


def _template(rng: np.random.Generator, kind: str) -> str:
    """One of the sentences of a kind."""
    return _TABLE[kind][rng.integers(len(_TABLE[kind]))]


def write_caption(rng: np.random.Generator, scene: Scene) -> str:
    """One English sentence that names objects of the scene.

    Returns:
        str: In lower case, with a full stop.
    """
    groups: dict[str, list[SceneObject]] = {}
    for obj in scene.objects:
        groups.setdefault(obj.cls.name, []).append(obj)
    names = list(groups)
    rng.shuffle(names)
    area = scene.image.shape[0] * scene.image.shape[1]
    background = with_article(scene.background)
    if len(names) > 1 and rng.random() < 0.25:
        singles = [n for n in names if len(groups[n]) == 1]
        if len(singles) > 1:
            first, second = groups[singles[0]][0], groups[singles[1]][0]
            return _template(rng, 'related').format(
                _phrase(rng, [first], area), _relation(rng, first, second),
                _phrase(rng, [second], area))
    if len(names) > 1 and rng.random() < LEAVE_OUT_RATE:
        names = names[:-1]
    phrases = [_phrase(rng, groups[name], area) for name in names]
    single = len(names) == 1 and len(groups[names[0]]) == 1
    joined = english().join(phrases, final_sep='')
    roll = rng.random()
    if single and roll < 0.2:
        return f'{phrases[0]} {_place_words(groups[names[0]][0])}.'
    if roll < 0.45:
        return _template(rng, 'on_background').format(joined, background)
    return _template(rng, 'one' if single else 'several').format(joined)


def write_captions(rng: np.random.Generator, scene: Scene,
                   most: int) -> list[str]:
    """One to ``most`` different captions of a scene.

    Args:
        most (int): Upper bound of their number.
    """
    count = int(rng.integers(1, most + 1))
    return list(dict.fromkeys(write_caption(rng, scene) for _ in range(count)))


def tag_finder(classes: Sequence[SceneClass]) -> TagFinder:
    """Finds the classes that captions of scenes name.

    It also knows what only these captions say: 'a pair of skis'.
    """
    return TagFinder({
        cls.id: [
            form for word in cls.words
            for form in (word, plural(word), singular(word))
        ]
        for cls in classes
    })
