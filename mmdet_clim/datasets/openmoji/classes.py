# Licensed under the Apache License, Version 2.0.
"""Which OpenMoji glyphs stand for which class."""
from dataclasses import dataclass
from typing import List, Tuple

from mmdet.datasets import CocoDataset

from ..coco_words import SCENE_SYNONYMS
from ..ov_coco import NOVEL_CLASSES, OVCocoDataset

#: Fitzpatrick modifiers, from light to dark.
SKIN_TONES = ('1F3FB', '1F3FC', '1F3FD', '1F3FE', '1F3FF')


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
    part: Tuple[float, float] = (0.0, 1.0)
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
    glyphs: Tuple[Glyph, ...]
    synonyms: Tuple[str, ...] = ()
    weight: float = 1.0

    @property
    def words(self) -> Tuple[str, ...]:
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

# Checked by eye on a contact sheet. 'CODE=noun' names the very drawing,
# 'CODE[a:b]' uses that share of its width, 'CODE*' adds the skin tones.
# Left out because no emoji shows the object by itself: bench, snowboard and
# surfboard (only with their riders), remote, microwave, oven, toaster, sink,
# refrigerator.
_COCO_GLYPHS = """
person: 1F9CD* 1F6B6* 1F468*=man 1F469*=woman 1F466*=boy 1F467*=girl 1F9D1*
    1F474*=man 1F475*=woman 1F9D5*=woman 1F46E* 1F477* 1F9D1-200D-1F33E=farmer
    1F468-200D-1F373=cook 1F9D1-200D-1F680=astronaut 1F483=dancer 1F57A=dancer
    1F3C3=runner 1F9D4=man
bicycle: 1F6B2
car: 1F697 1F698 1F695=taxi 1F696=taxi 1F699 1F693 1F694
motorcycle: 1F3CD 1F6F5=scooter
airplane: 2708 1F6E9 1F6EB 1F6EC
bus: 1F68C 1F68D 1F68E=trolleybus
train: 1F682=locomotive 1F684 1F685 1F686 1F683 1F688 1F68A=tram 1F68B=tram
truck: 1F69B=lorry 1F69A 1F6FB 1F692
boat: 26F5=sailboat 1F6F6=canoe 1F6A4=speedboat 1F6E5
bird: 1F426 1F426-200D-2B1B 1F99C=parrot 1F986=duck 1F985=eagle 1F54A=dove
    1F989=owl 1F9A2=swan
cat: 1F408 1F431 1F408-200D-2B1B
dog: 1F415 1F436 1F429=poodle 1F9AE 1F415-200D-1F9BA
horse: 1F40E 1F434
sheep: 1F411 1F40F=ram
cow: 1F404 1F42E 1F402=ox
elephant: 1F418
bear: 1F43B 1F43B-200D-2744-FE0F=polar bear 1F43C=panda
zebra: 1F993
giraffe: 1F992
backpack: 1F392
umbrella: 2602 1F302 26F1=parasol
handbag: 1F45C 1F45B=purse 1F45D
tie: 1F454
suitcase: 1F9F3 1F4BC=briefcase
frisbee: 1F94F
skis: 1F3BF
kite: 1FA81
skateboard: 1F6F9
bottle: 1F37E 1F37C E0CB E0CC 1F9F4
cup: 2615 1F964 1F375=teacup E151=mug
fork: 1F374[0.5:1]
knife: 1F52A 1F374[0:0.5]
spoon: 1F944
bowl: 1F963 1F35C 1F35A 1F957
banana: 1F34C
apple: 1F34E 1F34F
sandwich: 1F96A
orange: 1F34A E0C0
broccoli: 1F966
carrot: 1F955
pizza: 1F355
donut: 1F369
cake: 1F382=birthday cake 1F370
chair: 1FA91 E141=armchair 1F4BA=seat
couch: 1F6CB
bed: 1F6CF
toilet: 1F6BD
tv: 1F4FA 1F5A5=monitor
laptop: 1F4BB
mouse: 1F5B1
keyboard: 2328 E1D1
book: 1F4D5 1F4D7 1F4D8 1F4D9 1F4D6
clock: 1F570 23F0=alarm clock 1F550 1F557
vase: 1F3FA 26B1
scissors: 2702
toothbrush: 1FAA5
"""

# A person is in every second image of COCO, and has the most drawings.
_COCO_WEIGHTS = {'person': 2.0}


def _read_glyphs(spec: str) -> Tuple[Glyph, ...]:
    """Parse one line of the glyph table."""
    entries: List[str] = []
    for token in spec.split():
        # a noun may hold a blank: its second word has no code point
        if token[0].isdigit() or token[0].isupper():
            entries.append(token)
        else:
            entries[-1] += ' ' + token
    glyphs = []
    for entry in entries:
        entry, _, noun = entry.partition('=')
        toned = entry.endswith('*')
        entry, _, part = entry.rstrip('*').partition('[')
        span = (0.0, 1.0)
        if part:
            start, end = part.rstrip(']').split(':')
            span = (float(start), float(end))
        glyphs.append(Glyph(entry, span, noun))
        if toned:
            glyphs += [
                Glyph(f'{entry}-{tone}', span, noun) for tone in SKIN_TONES
            ]
    return tuple(glyphs)


def coco_classes() -> List[SceneClass]:
    """The 65 OV-COCO classes in COCO's order, with COCO's own ids.

    Returns:
        list[SceneClass]: Classes that no emoji shows have no glyphs; they
        are listed because label indices follow the categories of a file.
    """
    ids = [i for i in range(1, 91) if i not in _NO_COCO_IDS]
    numbers = dict(zip(CocoDataset.METAINFO['classes'], ids))
    lines = _COCO_GLYPHS.replace('\n    ', ' ').strip().split('\n')
    glyphs = dict(line.split(': ') for line in lines)
    return [
        SceneClass(
            name=name,
            id=numbers[name],
            supercategory=next(of for of, last in _SUPERCATEGORIES.items()
                               if numbers[name] <= last),
            novel=name in NOVEL_CLASSES,
            glyphs=_read_glyphs(glyphs.get(name, '')),
            synonyms=SCENE_SYNONYMS.get(name, ()),
            weight=_COCO_WEIGHTS.get(name, 1.0))
        for name in OVCocoDataset.METAINFO['classes']
    ]
