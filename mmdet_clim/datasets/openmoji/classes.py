# Licensed under the Apache License, Version 2.0.
"""The vocabularies, and which OpenMoji glyphs stand for which class."""
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from mmdet.datasets import CocoDataset

from ..coco_words import SCENE_SYNONYMS
from ..ov_coco import NOVEL_CLASSES, OVCocoDataset
from ..package_tables import table_beside

#: How many times oftener the commonest class of LVIS's long tail is drawn
#: than the rarest.
HEAD_TO_TAIL = 125.0
_TABLE = table_beside(__file__)
# Code points, the part that is used, '*' for one in each skin tone, and '='
# before a noun, of which the second word has no code point.
_GLYPH = re.compile(r'([0-9A-Z][^\s\[*=]*)(?:\[([\d.]+):([\d.]+)\])?(\*?)'
                    r'(?:=(\S+(?: [^\s0-9A-Z]\S*)*))?')
#: Fitzpatrick modifiers, from light to dark.
SKIN_TONES = ('-1F3FB', '-1F3FC', '-1F3FD', '-1F3FE', '-1F3FF')


@dataclass(frozen=True)
class Glyph:
    """One drawing of a class.

    Args:
        code (str): Code points of the emoji as OpenMoji names its file.
        part (tuple[float, float]): The share of the drawing's width that is
            used, from left to right. ``1F374`` shows a knife beside a fork;
            its halves are one glyph each.
        noun (str): What a caption may call this very drawing ('poodle');
            empty where it has no name of its own.
    """

    code: str
    part: tuple[float, float] = (0.0, 1.0)
    noun: str = ''


@dataclass(frozen=True)
class SceneClass:
    """A class of the vocabulary and what is needed to draw and to name it.

    Args:
        id (int): Category id in the annotation files.
        supercategory (str): As in COCO's annotation files.
        novel (bool): True if its boxes are kept from training.
        glyphs (tuple[Glyph]): Its drawings; empty if no emoji shows it.
        synonyms (tuple[str]): Other words for it, in captions and tags.
        weight (float): How often it is drawn, against the other classes.
    """

    name: str
    id: int
    supercategory: str
    novel: bool
    glyphs: tuple[Glyph, ...]
    synonyms: tuple[str, ...] = ()
    weight: float = 1.0

    @property
    def words(self) -> tuple[str, ...]:
        """Every word that names the class: name, synonyms, glyph nouns."""
        nouns = [glyph.noun for glyph in self.glyphs if glyph.noun]
        return tuple(dict.fromkeys([self.name, *self.synonyms, *nouns]))


# COCO's ids go from 1 to 90, without these.
_NO_COCO_IDS = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)
# The last id of each of COCO's supercategories.
_SUPERCATEGORIES = dict(
    person=1,
    vehicle=9,
    outdoor=15,
    animal=25,
    accessory=33,
    sports=43,
    kitchen=51,
    food=61,
    furniture=70,
    electronic=77,
    appliance=82,
    indoor=90)


def _read_glyphs(spec: str) -> tuple[Glyph, ...]:
    """Parse one line of the glyph table."""
    return tuple(
        Glyph(code + tone, (float(start or 0), float(end or 1)), noun)
        for code, start, end, toned, noun in _GLYPH.findall(spec)
        for tone in ('', *(SKIN_TONES if toned else ())))


def coco_classes() -> list[SceneClass]:
    """The 65 OV-COCO classes in COCO's order, with COCO's own ids.

    Returns:
        list[SceneClass]: Classes that no emoji shows have no glyphs; they
        are listed because label indices follow the categories of a file.
    """
    ids = [i for i in range(1, 91) if i not in _NO_COCO_IDS]
    numbers = dict(zip(CocoDataset.METAINFO['classes'], ids))
    return [
        SceneClass(
            name=name,
            id=numbers[name],
            supercategory=next(of for of, last in _SUPERCATEGORIES.items()
                               if numbers[name] <= last),
            novel=name in NOVEL_CLASSES,
            glyphs=_read_glyphs(_TABLE['coco'].get(name, '')),
            synonyms=tuple(SCENE_SYNONYMS.get(name, ())),
            # It is in every second image, and has the most drawings.
            weight=2.0 if name == 'person' else 1.0)
        for name in OVCocoDataset.METAINFO['classes']
    ]


def lvis_classes() -> list[SceneClass]:
    """The objects in alphabetical order, with ids from 1.

    Returns:
        list[SceneClass]: ``weight`` falls geometrically, by
        ``HEAD_TO_TAIL`` over the whole vocabulary, in an order that follows
        from the names alone. Novelty is not set here: it follows from the
        images that a data set has of a class.
    """
    table = _TABLE['lvis']
    shuffled = sorted(
        table, key=lambda name: hashlib.sha256(name.encode()).hexdigest())
    step = HEAD_TO_TAIL**(-1 / (len(table) - 1))
    weight = {name: step**rank for rank, name in enumerate(shuffled)}
    return [
        SceneClass(
            name=name,
            id=number,
            supercategory='object',
            novel=False,
            glyphs=_read_glyphs(table[name]),
            weight=weight[name])
        for number, name in enumerate(sorted(table), start=1)
    ]


def frequencies(image_counts: Sequence[int], train_images: int) -> list[str]:
    """LVIS's rare, common and frequent classes, for a smaller data set.

    LVIS v1 calls a class rare with 1 to 10 training images of 100,170,
    common with 11 to 100, frequent with more. With a scene per 800 in place
    of 10 per 100,170, and ten times as many for common, a data set of a few
    thousand scenes has about LVIS's shares of the three.

    Args:
        image_counts (Sequence[int]): Training images that show each class.
        train_images (int): Training images in all.

    Returns:
        list[str]: 'r', 'c' or 'f' per class.
    """
    rare = max(1, round(train_images / 800))
    return np.array(['r', 'c', 'f'])[np.digitize(
        image_counts, (rare, 10 * rare), right=True)].tolist()
