# Licensed under the Apache License, Version 2.0.
"""Image files, caption files and shards, made afresh for each test."""
import json
from pathlib import Path

import cv2
import numpy as np
import pytest


def plain_image(path, width, height, colour=(10, 120, 240)):
    """Write an image of one BGR colour and return its path."""
    image = np.full((height, width, 3), colour, dtype=np.uint8)
    assert cv2.imwrite(str(path), image)
    return path


@pytest.fixture
def write_image():
    """The function that writes an image of one colour."""
    return plain_image


@pytest.fixture
def caption_file(tmp_path):
    """COCO captions of five images of 40x30 pixels and two categories."""
    folder = tmp_path / 'images'
    folder.mkdir()
    images = []
    for number in range(5):
        plain_image(folder / f'{number}.png', 40, 30, (number, 0, 0))
        images.append(
            dict(
                id=100 + number,
                file_name=f'{number}.png',
                height=30,
                width=40,
                captions=[f'caption {number}', 'another one'],
                pos_category_ids=[18] if number % 2 else [17, 18]))
    path = tmp_path / 'captions.json'
    content = dict(
        images=images,
        categories=[dict(id=17, name='cat'),
                    dict(id=18, name='dog')])
    path.write_text(json.dumps(content), encoding='utf-8')
    return path


@pytest.fixture
def change_captions(caption_file):
    """A function that edits the content of ``caption_file``."""

    def change(edit) -> Path:
        content = json.loads(caption_file.read_text(encoding='utf-8'))
        edit(content)
        caption_file.write_text(json.dumps(content), encoding='utf-8')
        return caption_file

    return change


@pytest.fixture
def warnings_logged(monkeypatch):
    """The texts that the data package hands to MMEngine's logger."""
    texts = []

    def record(text, logger=None, level=20):
        texts.append(text)

    for module in ('coco_annotations', 'image_text', 'ov_coco', 'unreadable',
                   'multi_source'):
        monkeypatch.setattr(f'mmdet_clim.datasets.{module}.print_log', record)
    return texts
