# Licensed under the Apache License, Version 2.0.
"""The report of a fine-tuning: what it learned, from what, at what cost."""
import math
import random
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.structures import InstanceData

from mmdet_clim.datasets.image_files import read_image_file
from mmdet_clim.datasets.preparation.counts import describe_summary
from mmdet_clim.datasets.vocabulary import Vocabulary
from mmdet_clim.evaluation.class_ap import compare_class_ap
from mmdet_clim.evaluation.error_types import (
    ERROR_TYPES,
    confusions,
    error_types,
    first_detections,
)
from mmdet_clim.evaluation.run_log import Series
from mmdet_clim.visualization.class_bars import plot_class_ap
from mmdet_clim.visualization.curves import plot_curves
from mmdet_clim.visualization.detections import draw_boxes, draw_detections
from mmdet_clim.visualization.grid import picture_grid
from mmdet_clim.visualization.report import Section

from .finetune_labels import Find

BEFORE, AFTER = 'before', 'after'
PICTURES = 12
#: Rows of the table of confusions.
CONFUSIONS = 15
CLASS_KEY = 'ov_coco/ap50_'


@dataclass
class Evaluated:
    """What two detectors made of the images that have boxes.

    Args:
        content (Mapping): The boxes, as a COCO JSON holds them.
        images (Path): Folder of the images.
        metrics (Mapping[str, Mapping]): Of each detector, ``before`` and
            ``after``, those of :class:`OVCocoMetric`.
        detections (Mapping[str, list[dict]]): Their detections in COCO's
            result format.
    """

    content: Mapping
    images: Path
    metrics: Mapping[str, Mapping[str, float | None]]
    detections: Mapping[str, list[dict]]


def data_section(summary: Mapping, notes: Sequence[str]) -> Section:
    """What the data was, what was left out of it and why.

    Args:
        summary (Mapping): Of the captions, as ``prepare_image_text`` gives
            it.
        notes (Sequence[str]): What was repaired in boxes or left out.
    """
    rows = []
    for name, counts in summary['files'].items():
        for kind in ('dropped', 'noted'):
            rows += [(name, kind, number, what)
                     for what, number in counts.get(kind, {}).items()]
    texts = [
        line.strip() for line in describe_summary(summary).splitlines()
        if not line.lstrip().startswith(('dropped: ', 'noted: '))
    ]
    if not rows and not any(notes):
        texts.append('Nothing was left out.')
    return Section('Data', [*texts, *filter(None, notes)],
                   ('file', '', 'number', 'what'), rows)


def curve_section(scalars: Mapping[str, Series]) -> Section:
    """The losses of the training.

    Args:
        scalars (Mapping[str, Series]): As ``read_scalars`` gives them.
    """
    parts = sorted(key for key in scalars
                   if 'loss' in key and key != 'loss' and '.' in key)
    panels = [(key, key) for key in ['loss', *parts[:3]] if key in scalars]
    if not panels:
        return Section('Training', ['There is no log.'])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'curves.png')
        plot_curves({'training': scalars}, file, panels)
        return Section('Training', image=file)


def evaluation_sections(evaluated: Evaluated, vocabulary: Vocabulary,
                        seed: int) -> Iterator[Section]:
    """AP, kinds of errors, confusions and pictures of both detectors.

    Args:
        evaluated (Evaluated): The detections.
        vocabulary (Vocabulary): The classes, and which of them are base.
        seed (int): Of the choice of images.
    """
    yield _class_section(evaluated, vocabulary)
    yield _error_section(evaluated)
    yield _confusion_section(evaluated)
    yield _truth_section(evaluated, vocabulary, seed)


def _class_section(evaluated: Evaluated, vocabulary: Vocabulary) -> Section:
    runs = {
        which: [{
            key[len(CLASS_KEY):]: value
            for key, value in metrics.items()
            if key.startswith(CLASS_KEY) and value is not None
        }]
        for which, metrics in evaluated.metrics.items()
    }
    objects = Counter(entry['category_id']
                      for entry in evaluated.content['annotations']
                      if not entry.get('iscrowd', 0))
    ids = {c['name']: c['id'] for c in evaluated.content['categories']}
    rows = compare_class_ap(runs, vocabulary, (AFTER, BEFORE))
    table = [(row['name'], 'novel' if row['novel'] else 'base',
              objects[ids[row['name']]], *(_number(row['ap'][which])
                                           for which in (BEFORE, AFTER)),
              _number(row['gain'], '+.1f')) for row in rows]
    for group in ('base', 'novel', 'all'):
        before, after = (
            evaluated.metrics[which].get(f'ov_coco/{group}_ap50')
            for which in (BEFORE, AFTER))
        known = [None if v is None else 100 * v for v in (before, after)]
        gain = None
        if before is not None and after is not None:
            gain = 100 * (after - before)
        table.append((f'mean of {group} classes', '', '', *map(_number, known),
                      _number(gain, '+.1f')))
    text = (
        'AP50 in percent, of the original detector with the same vocabulary, '
        'and of the new one. Base classes had boxes in training; without any '
        'boxes, all classes are base classes.')
    heads = ('class', '', 'objects', BEFORE, AFTER, 'gain')
    if not rows:
        return Section('AP of each class', [text], heads, table)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, 'bars.png')
        plot_class_ap(rows, file)
        return Section('AP of each class', [text], heads, table, file)


def _error_section(evaluated: Evaluated) -> Section:
    rows = []
    for which, detections in evaluated.detections.items():
        found: Counter = Counter()
        for errors in error_types(evaluated.content['annotations'],
                                  detections).values():
            found.update(errors.first())
        rows.append((which, *(found[kind] for kind in ERROR_TYPES)))
    return Section('Kinds of errors', [
        'The best detections of each class, as many as it has objects, at an '
        'IoU of 0.5: correct, duplicate, wrong place, wrong class, both '
        'wrong, or background.'
    ], ('', *ERROR_TYPES), rows)


def _confusion_section(evaluated: Evaluated) -> Section:
    names = {c['id']: c['name'] for c in evaluated.content['categories']}
    counts = {
        which: confusions(evaluated.content['annotations'], detections)
        for which, detections in evaluated.detections.items()
    }
    pairs = sorted(
        set().union(*counts.values()),
        key=lambda pair: (-counts[AFTER][pair], -counts[BEFORE][pair], pair))
    rows = [(names[real], names[taken], counts[BEFORE][real, taken],
             counts[AFTER][real, taken]) for real, taken in pairs[:CONFUSIONS]]
    text = ('Objects that are detected as another class. If two classes are '
            'confused, distinguish them in the captions, or merge them.'
            ) if rows else 'No object is detected as another class.'
    return Section('Confusions', [text],
                   ('object', 'detected as', BEFORE, AFTER), rows)


def _truth_section(evaluated: Evaluated, vocabulary: Vocabulary,
                   seed: int) -> Section:
    """Images with their boxes and both detectors' best ones."""
    content = evaluated.content
    labels = {
        c['id']: vocabulary.names.index(c['name'])
        for c in content['categories'] if c['name'] in vocabulary.names
    }
    objects = [
        entry for entry in content['annotations']
        if entry['category_id'] in labels and not entry.get('iscrowd', 0)
    ]
    holding = {entry['image_id'] for entry in objects}
    chosen = _some([i for i in content['images'] if i['id'] in holding], seed)
    pictures = _readable(evaluated.images, chosen)
    if not pictures:
        return Section('Pictures', ['No image can be read.'])
    ids = [entry['id'] for entry, _ in pictures]
    columns = {
        which:
        _instances([(d, correct)
                    for d, correct in first_detections(objects, detections)
                    if d['category_id'] in labels], ids, labels)
        for which, detections in evaluated.detections.items()
    }
    truth = [
        InstanceData(bboxes=found.bboxes, labels=found.labels)
        for found in _instances([(dict(entry, score=1.), True)
                                 for entry in objects], ids, labels)
    ]
    return Section(
        'Before and after',
        image=draw_detections([image for _, image in pictures],
                              truth,
                              columns,
                              vocabulary.names,
                              _novel(vocabulary),
                              side=340,
                              note='dashed: wrong'))


def kept_section(kept: Mapping, picture: Path) -> Section:
    """What the detector knew before.

    Args:
        kept (Mapping): As :class:`KeptWords` reports it.
        picture (Path): The images that differ most, where there are any.
    """
    rows = [(title, *(_percent(kept[key][which]) for which in (BEFORE, AFTER)))
            for key, title in (('old_ap50', 'AP50 of previous classes'),
                               ('new_ap50', 'AP50 of your classes'),
                               ('all_ap50', 'AP50 of all')) if key in kept]
    agreement = kept.get('agreement')
    if agreement is not None:
        rows.append(('previous classes, detections in your images',
                     agreement[BEFORE], agreement[AFTER]))
        rows.append(
            ('of these, found again', '', _percent(agreement['found_again'])))
    absent = kept.get('not_named')
    if absent is not None:
        rows.append(('your classes, detections in images whose captions do '
                     'not name them', absent[BEFORE], absent[AFTER]))
    return Section('What it knew before', [
        'The original and the new detector, both with '
        f'{len(kept["old_words"])} previous classes and yours. Details are in '
        'kept.json.'
    ], ('', BEFORE, AFTER), rows, picture if picture.is_file() else None)


def picture_section(captioned: Mapping, folder: Path, vocabulary: Vocabulary,
                    find: Mapping[str,
                                  Find], least: float, seed: int) -> Section:
    """Captioned images with the boxes of both detectors.

    Args:
        captioned (Mapping): ``images`` with ``captions``.
        folder (Path): Folder of the images.
        vocabulary (Vocabulary): The classes.
        find (Mapping[str, Callable]): Both detectors, ``before`` and
            ``after``.
        least (float): Least score of a box that is drawn.
        seed (int): Of the choice of images.
    """
    tagged = [i for i in captioned['images'] if i.get('pos_category_ids')]
    chosen = _some(tagged or captioned['images'], seed)
    pictures = _readable(folder, chosen)
    rows = []
    for entry, image in pictures:
        cells = []
        for detect in find.values():
            predicted = detect(str(folder / entry['file_name']))
            cells.append(
                draw_boxes(
                    image,
                    InstanceData(
                        bboxes=torch.tensor(predicted['bboxes']).reshape(
                            -1, 4),
                        labels=torch.tensor(
                            predicted['labels'], dtype=torch.long),
                        scores=torch.tensor(predicted['scores'])),
                    vocabulary.names, _novel(vocabulary), least, 420))
        rows.append(cells)
    if not rows:
        return Section('Pictures', ['No image can be read.'])
    names = [
        ' / '.join(entry.get('captions', ()))[:120] for entry, _ in pictures
    ]
    return Section(
        'Before and after', [f'Boxes that score {least:g} and more.'],
        image=np.asarray(picture_grid(rows, list(find), names, side=420)))


def _some(images: Sequence[Mapping], seed: int) -> list[Mapping]:
    """So many of them, the same for the same seed."""
    return random.Random(seed).sample(list(images), min(PICTURES, len(images)))


def _readable(folder: Path,
              images: Sequence[Mapping]) -> list[tuple[Mapping, np.ndarray]]:
    """Images (H, W, 3), uint8 RGB, those that can be read."""
    found = []
    for entry in images:
        try:
            image = read_image_file(str(folder / entry['file_name']))
        except (OSError, ValueError):
            continue
        found.append((entry, np.ascontiguousarray(image[..., ::-1])))
    return found


def _instances(found: Sequence[tuple[Mapping, bool]], images: Sequence[int],
               labels: Mapping[int, int]) -> list[InstanceData]:
    """Boxes of each image, xyxy pixels."""
    of_image: dict[int, list] = defaultdict(list)
    for entry, correct in found:
        of_image[entry['image_id']].append((entry, correct))
    result = []
    for image in images:
        here = of_image[image]
        boxes = torch.tensor([e['bbox'] for e, _ in here],
                             dtype=torch.float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        result.append(
            InstanceData(
                bboxes=boxes,
                labels=torch.tensor(
                    [labels[e['category_id']] for e, _ in here],
                    dtype=torch.long),
                scores=torch.tensor([float(e['score']) for e, _ in here]),
                correct=torch.tensor([c for _, c in here], dtype=torch.bool)))
    return result


def _novel(vocabulary: Vocabulary) -> list[str]:
    """The classes that had no boxes."""
    return [
        n for n, base in zip(vocabulary.names, vocabulary.is_base) if not base
    ]


def _percent(share: float | None) -> str:
    return _number(None if share is None else 100 * share)


def _number(value: float | None, form: str = '.1f') -> str:
    return '-' if value is None or math.isnan(value) else format(value, form)
