# Licensed under the Apache License, Version 2.0.
"""Tiny data in COCO's and LVIS's layouts, and runs that are killed."""
import json
import tarfile
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmdet_clim.datasets import OVCocoDataset


class Killed(BaseException):
    """What ends a run in the middle, past every ``except Exception``."""


@pytest.fixture
def killed():
    """The exception that stands for a killed process."""
    return Killed


@pytest.fixture
def files_of():
    """Content of all finished files of a folder, by name."""

    def read(folder: Path) -> dict:
        return {
            str(path.relative_to(folder)): path.read_bytes()
            for path in folder.rglob('*') if path.is_file() and not any(
                part.startswith('.')
                for part in path.relative_to(folder).parts)
        }

    return read


@pytest.fixture
def write_picture():
    """A function that writes an image of some size."""

    def write(path: Path, width: int, height: int) -> bytes:
        path.parent.mkdir(parents=True, exist_ok=True)
        image = np.full((height, width, 3), 90, np.uint8)
        assert cv2.imwrite(str(path), image)
        return path.read_bytes()

    return write


@pytest.fixture
def make_shard():
    """A function that writes an uncompressed tar of named bytes."""

    def make(path: Path, members: dict) -> None:
        with tarfile.open(path, 'w') as shard:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                shard.addfile(info, BytesIO(data))

    return make


def coco_categories() -> list:
    """The 65 classes and two others, ids from 101 in another order."""
    names = [*reversed(OVCocoDataset.METAINFO['classes'])]
    names.insert(3, 'hot dog')
    names.append('teddy bear')
    return [dict(id=101 + i, name=n) for i, n in enumerate(names)]


@pytest.fixture
def coco_folder(tmp_path):
    """``annotations`` of four images; ids by class name in ``.ids``."""
    folder = tmp_path / 'coco' / 'annotations'
    folder.mkdir(parents=True)
    categories = coco_categories()
    ids = {c['name']: c['id'] for c in categories}
    images = [
        dict(id=i, file_name=f'{i}.jpg', height=10, width=20, license=1)
        for i in (7, 3, 9, 4)
    ]

    def box(number, image, name):
        return dict(
            id=number,
            image_id=image,
            category_id=ids[name],
            bbox=[1.5, 2, 3, 4.25],
            area=12.75,
            iscrowd=0,
            # 200 pixels of nothing
            segmentation=dict(size=[10, 20], counts='X6'))

    boxes = [
        box(1, 7, 'person'),
        box(2, 7, 'cat'),
        box(3, 3, 'hot dog'),
        box(4, 9, 'bus'),
        box(5, 9, 'bus'),
    ]
    captions = [
        (7, 'A man with a kitten.'),
        (9, 'Two buses at the bus stop'),
        (7, ' '),
        (3, 'a hot dog'),
        (7, 'someone and a café'),
    ]
    # LVIS and COCO order their keys differently
    contents = {
        'instances_train2017.json':
        dict(
            info=dict(year=2017),
            annotations=boxes,
            images=images,
            categories=categories),
        'instances_val2017.json':
        dict(
            images=images,
            categories=categories,
            annotations=boxes,
            licenses=[dict(id=1)]),
        'captions_train2017.json':
        dict(
            images=images,
            annotations=[
                dict(id=i, image_id=image, caption=caption)
                for i, (image, caption) in enumerate(captions)
            ]),
    }
    for name, content in contents.items():
        (folder / name).write_text(json.dumps(content), encoding='utf-8')
    return folder


@pytest.fixture
def lvis_file(tmp_path):
    """A training file of two images, a rare and two other classes."""
    categories = [
        dict(
            id=5,
            name='bat_(animal)',
            synset='bat.n.01',
            synonyms=['bat_(animal)'],
            frequency='r',
            image_count=1,
            instance_count=2),
        dict(
            id=2,
            name='aerosol_can',
            synset='aerosol.n.02',
            synonyms=['aerosol_can', 'spray_can'],
            frequency='c',
            image_count=1,
            instance_count=1),
        dict(
            id=3,
            name='bat_(sports_equipment)',
            synset='bat.n.05',
            synonyms=['bat_(sports_equipment)', 'club'],
            frequency='f',
            image_count=7,
            instance_count=1),
    ]
    images = [
        dict(
            id=i,
            coco_url=f'http://images.cocodataset.org/train2017/{i}.jpg',
            height=8,
            width=9,
            neg_category_ids=[5],
            not_exhaustive_category_ids=[]) for i in (11, 12)
    ]
    annotations = [
        dict(id=1, image_id=11, category_id=5, bbox=[0, 0, 2, 2], area=4),
        dict(id=2, image_id=11, category_id=5, bbox=[1, 1, 2, 2], area=4),
        dict(id=3, image_id=11, category_id=2, bbox=[0, 0, 2, 2], area=4),
        dict(id=4, image_id=12, category_id=3, bbox=[0, 0, 2, 2], area=4),
    ]
    path = tmp_path / 'lvis' / 'lvis_v1_train.json'
    path.parent.mkdir()
    path.write_text(
        json.dumps(
            dict(
                annotations=annotations, categories=categories,
                images=images)))
    return path


@pytest.fixture
def change_json():
    """A function that edits a JSON file in place."""

    def change(path: Path, edit) -> None:
        content = json.loads(path.read_text(encoding='utf-8'))
        edit(content)
        path.write_text(json.dumps(content), encoding='utf-8')

    return change
