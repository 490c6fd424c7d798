# Licensed under the Apache License, Version 2.0.
"""Checks of the data of a fine-tuning, and what tells it from other data."""
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mmdet_clim.datasets.box_formats import OwnBoxes
from mmdet_clim.datasets.caption_sources import IMAGE_SUFFIXES
from mmdet_clim.datasets.class_names import names_by_spelling, spelling
from mmdet_clim.datasets.coco_annotations import image_file_name
from mmdet_clim.datasets.preparation.files import whole_file
from mmdet_clim.datasets.vocabulary import Vocabulary


def named_as(boxes: OwnBoxes | None,
             vocabulary: Vocabulary) -> OwnBoxes | None:
    """Boxes whose classes have the names of the vocabulary.

    A class is one of the vocabulary if its name is spelled like one of its
    phrases but for capitals, ``_`` and ``-``. Several may be the same one.

    Args:
        boxes (OwnBoxes, optional): They are changed in place.
        vocabulary (Vocabulary): Its phrases.
    """
    if boxes is None:
        return None
    spelled = names_by_spelling(vocabulary.all_phrases)
    first: dict[str, int] = {}
    meant: dict[int, int] = {}
    kept = []
    for category in boxes.content['categories']:
        name = category['name']
        if name not in vocabulary.names:
            name = spelled.get(spelling(name), name)
        meant[category['id']] = first.setdefault(name, category['id'])
        if first[name] == category['id']:
            kept.append(dict(category, name=name))
    if kept != boxes.content['categories']:
        boxes.content['categories'] = kept
        for annotation in boxes.content['annotations']:
            annotation['category_id'] = meant[annotation['category_id']]
        # It has the names as they were.
        boxes.file = None
    return boxes


def boxed_names(option: str,
                boxes: OwnBoxes | None,
                names: Sequence[str],
                need_all: bool = False) -> list[str]:
    """The classes that there are boxes of.

    Args:
        option (str): What gave the boxes, for errors.
        boxes (OwnBoxes, optional): The boxes.
        names (Sequence[str]): The vocabulary.
        need_all (bool): Whether all images have to be there. In training,
            one that is not is replaced.

    Returns:
        list[str]: In the order of the vocabulary.

    Raises:
        ValueError: If there is no box of the vocabulary, or the images are
            not in their folder.
    """
    if boxes is None:
        return []
    content, folder = boxes.content, boxes.images
    known = {c['id']: c['name'] for c in content['categories']}
    found = {known[a['category_id']] for a in content['annotations']}
    boxed = [name for name in names if name in found]
    if not boxed:
        raise ValueError(
            f'{option}: expected boxes of some of {len(names)} classes of the '
            f'vocabulary, got boxes of {sorted(found)[:10]}')
    others = Counter(known[a['category_id']] for a in content['annotations'])
    for name in names:
        others.pop(name, None)
    if others:
        text = ', '.join(f'{name} ({n})' for name, n in others.most_common(10))
        more = len(others) - 10
        print_log(f'{option}: boxes of classes that are not in the vocabulary '
                  f'are left out: {text}'
                  f'{f" and of {more} more" if more > 0 else ""}')
    images = [image_file_name(image) for image in content['images']]
    missing = [name for name in images if not (folder / name).is_file()]
    if len(missing) == len(images) or (need_all and missing):
        raise ValueError(
            f'{option}: expected images in {folder}, got {len(missing)} of '
            f'{len(images)} that are not there, such as {missing[0]}')
    if missing:
        print_log(f'{option}: {len(missing)} of {len(images)} images are not '
                  f'in {folder}, such as {missing[0]}; others replace them')
    return boxed


def content_digest(content: Any) -> str:
    """Says what a part of the data is, whatever its layout was.

    Args:
        content: What JSON can hold.
    """
    text = json.dumps(content)
    return f'sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}'


def boxes_digest(boxes: OwnBoxes | None) -> str | None:
    """Says which boxes they are.

    Args:
        boxes (OwnBoxes, optional): The boxes.
    """
    if boxes is None:
        return None
    count = len(boxes.content['annotations'])
    return f'{count} boxes, {content_digest(boxes.content)}'


def write_lines(path: Path, entries: Iterable[dict]) -> None:
    """Write JSON lines; a file that holds them already stays untouched.

    Args:
        path (Path): The file.
        entries (Iterable[dict]): A line each.
    """
    text = ''.join(f'{json.dumps(entry)}\n' for entry in entries)
    if not path.is_file() or path.read_text(encoding='utf-8') != text:
        with whole_file(path) as file:
            file.write(text)


def folder_digest(folder: Path, work_dir: Path) -> str:
    """Says what a folder holds: names and sizes of images and texts.

    Args:
        folder (Path): Looked through to any depth.
        work_dir (Path): What is in it does not count.
    """
    digest = hashlib.sha256()
    count = 0
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders if Path(parent, name) != work_dir)
        for path in (Path(parent, file) for file in sorted(files)):
            if path.suffix.lower() in (*IMAGE_SUFFIXES, '.txt'):
                name = path.relative_to(folder).as_posix()
                digest.update(repr((name, path.stat().st_size)).encode())
                count += 1
    return f'{count} files, sha256 {digest.hexdigest()[:16]}'
