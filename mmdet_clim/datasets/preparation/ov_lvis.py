# Licensed under the Apache License, Version 2.0.
"""OV-LVIS's files out of LVIS's."""
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ..coco_annotations import CocoChecker
from ..json_checks import typed_list, typed_value, wrong_value
from ..ov_lvis import FREQUENCIES, check_split, class_name
from .coco_json import CocoFile, write_boxes
from .files import whole_file, write_json
from .job import Job, do_once, file_stamp, run_job

NO_RARE = '{}_norare.json'
CATEGORY_INFO = '{}_cat_info.json'
CLASS_NAMES = '{}_classes.txt'
SUMMARY = '{}_summary.json'
_INFO_KEYS = ('id', 'name', 'synset', 'synonyms', 'def', 'frequency')


def check_frequencies(categories: Mapping[int, dict], where: str) -> None:
    """Raise if the categories are not rare, common and frequent ones.

    Args:
        categories (Mapping[int, dict]): LVIS's entries, by id.

    Raises:
        ValueError: If a frequency is not known, no class is rare or all are,
            or the split of LVIS v1's 1203 classes is not 866 and 337.
    """
    counted: Counter = Counter()
    for category in categories.values():
        place = f"{where}: category {category['id']}"
        frequency = typed_value(category, 'frequency', str, place)
        if frequency not in FREQUENCIES:
            raise wrong_value(place, 'frequency', frequency,
                              f'one of {FREQUENCIES}')
        counted['novel' if frequency == 'r' else 'base'] += 1
    split = (counted['base'], counted['novel'])
    check_split(*split, where)
    if not all(split):
        raise ValueError(
            f"{where}: key 'frequency': expected rare classes "
            'and others, got {} base and {} novel classes'.format(*split))


def lvis_words(category: Mapping, where: str) -> tuple[str, ...]:
    """What captions may call a category: its name and synonyms.

    Qualifiers, as of 'bat_(animal)', are left out: captions do not have
    them.

    Args:
        category (Mapping): LVIS's entry, ``synonyms`` optional.
    """
    names = [
        typed_value(category, 'name', str, where),
        *typed_list(category, 'synonyms', str, where)
    ]
    words = [class_name(name).partition(' (')[0].strip() for name in names]
    return tuple(dict.fromkeys(filter(None, words)))


def _category_info(coco: CocoFile, categories: Mapping[int,
                                                       dict]) -> list[dict]:
    """The categories with the images and boxes counted in the file."""
    # An array: a million pairs take 16 MB.
    pairs = np.fromiter(((box['image_id'], box['category_id'])
                         for box in coco.entries('annotations')), '2i8')
    boxes, images = (
        Counter(of[:, 1].tolist()) for of in (pairs, np.unique(pairs, axis=0)))
    return [
        dict({key: category[key]
              for key in _INFO_KEYS if key in category},
             image_count=images[number],
             instance_count=boxes[number])
        for number, category in sorted(categories.items())
    ]


def _prepare_categories(coco: CocoFile, folder: Path, stem: str) -> dict:
    """Check the file and write what is known of its categories."""
    categories = coco.categories
    check_frequencies(categories, str(coco.path))
    info = _category_info(coco, categories)
    write_json(folder / CATEGORY_INFO.format(stem), info)
    with whole_file(folder / CLASS_NAMES.format(stem)) as file:
        file.writelines(f"{class_name(c['name'])}\n" for c in info)
    by_frequency = Counter(c['frequency'] for c in info)
    differ = [
        c['name'] for c in info for key in ('image_count', 'instance_count')
        if categories[c['id']].get(key, c[key]) != c[key]
    ]
    return dict(
        classes=len(info),
        base_classes=by_frequency['f'] + by_frequency['c'],
        novel_classes=by_frequency['r'],
        frequencies={f: by_frequency[f]
                     for f in FREQUENCIES},
        classes_whose_counts_the_file_says_differently=sorted(set(differ)))


def _prepare_boxes(coco: CocoFile, folder: Path, stem: str) -> dict:
    """Write the annotations without those of rare classes."""
    names = {
        number: class_name(category['name'])
        for number, category in coco.categories.items()
        if category['frequency'] != 'r'
    }
    out = folder / NO_RARE.format(stem)
    counts = write_boxes(coco, out, list(coco.categories.values()), names,
                         lambda category: 'boxes of rare classes')
    return {out.name: counts}


def prepare_ov_lvis(train: Path,
                    out: Path,
                    overwrite: bool = False) -> tuple[dict, bool]:
    """Make OV-LVIS's annotation files.

    Args:
        train (Path): ``lvis_v1_train.json``, or a file of its format.
        out (Path): Where the files go, named after it:
            ``lvis_v1_train_norare.json`` (every image, no box of a rare
            class), ``lvis_v1_train_cat_info.json`` (the categories with
            frequency and the counts of images and boxes in the full file),
            ``lvis_v1_train_classes.txt`` (class names, one a line, in the
            order of the ids) and ``lvis_v1_train_summary.json``.
        overwrite (bool): Replace files of other origin.

    Returns:
        tuple[dict, bool]: The summary, and False if all was made before.

    Raises:
        FileExistsError: If a file of other origin is in the way.
        FileNotFoundError: If ``train`` does not exist.
        ValueError: If it contradicts itself or the published split.
    """
    train, out = Path(train), Path(out)
    stem = train.stem
    job = Job(
        tool='prepare_ov_lvis',
        folder=out,
        outputs=tuple(
            name.format(stem)
            for name in (NO_RARE, CATEGORY_INFO, CLASS_NAMES)),
        summary=SUMMARY.format(stem),
        inputs={
            train.name: file_stamp(train,
                                   'the training annotations of LVIS v1')
        },
        parameters={})

    def make(folder: Path) -> dict:
        coco = CocoFile(train, folder, CocoChecker(str(train), lvis=True))
        facts = do_once(folder, 'categories',
                        lambda: _prepare_categories(coco, folder, stem))
        files = do_once(folder, 'boxes',
                        lambda: _prepare_boxes(coco, folder, stem))
        return dict(tool=job.tool, **facts, files=files)

    return run_job(job, make, overwrite)
