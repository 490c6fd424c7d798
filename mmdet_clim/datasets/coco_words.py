# Licensed under the Apache License, Version 2.0.
"""Other words for COCO's classes, as people write captions."""

from .package_tables import table_beside

_TABLE = table_beside(__file__)
#: What captions of OpenMoji-COCO may call an object.
SCENE_SYNONYMS: dict[str, list[str]] = _TABLE['scene_synonyms']
_FURTHER_WORDS: dict[str, list[str]] = _TABLE['further_words']
#: Phrases that hold a class's word without showing the class.
OTHER_PHRASES: list[str] = _TABLE['other_phrases']


def coco_words(name: str) -> tuple[str, ...]:
    """Every word that names a class of COCO in a photo's caption.

    Args:
        name (str): The class name, which comes first.
    """
    scene = [
        word for word in SCENE_SYNONYMS.get(name, ())
        if word not in _TABLE['not_in_photos']
    ]
    return tuple(dict.fromkeys([name, *scene, *_FURTHER_WORDS.get(name, ())]))
