# Licensed under the Apache License, Version 2.0.
"""OV-COCO: 48 base and 17 novel classes of COCO."""
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset
from mmengine.fileio import get_local_path
from mmengine.logging import print_log

from mmdet_clim.registry import DATASETS

from .coco_annotations import CocoChecker, clipped_box, file_sizes, stream_coco
from .images import UnreadableImageError
from .packed_boxes import PackedBoxes
from .palette import class_palette
from .replacing import ReplacesUnreadable
from .rows import DatasetOfRows

# REFERENCE.md section 7, after Bansal et al., "Zero-Shot Object Detection",
# ECCV 2018.
NOVEL_CLASSES = ('airplane', 'bus', 'cat', 'dog', 'cow', 'elephant',
                 'umbrella', 'tie', 'snowboard', 'skateboard', 'cup', 'knife',
                 'cake', 'couch', 'keyboard', 'sink', 'scissors')
BASE_CLASSES = ('person', 'bicycle', 'car', 'motorcycle', 'train', 'truck',
                'boat', 'bench', 'bird', 'horse', 'sheep', 'bear', 'zebra',
                'giraffe', 'backpack', 'handbag', 'suitcase', 'frisbee',
                'skis', 'kite', 'surfboard', 'bottle', 'fork', 'spoon', 'bowl',
                'banana', 'apple', 'sandwich', 'orange', 'broccoli', 'carrot',
                'pizza', 'donut', 'chair', 'bed', 'toilet', 'tv', 'laptop',
                'mouse', 'remote', 'microwave', 'oven', 'toaster',
                'refrigerator', 'book', 'clock', 'vase', 'toothbrush')


def _ov_coco_metainfo() -> dict:
    """The 65 classes in COCO's order with COCO's colours."""
    chosen = set(BASE_CLASSES) | set(NOVEL_CLASSES)
    coco = CocoDataset.METAINFO
    pairs = [(name, colour)
             for name, colour in zip(coco['classes'], coco['palette'])
             if name in chosen]
    return dict(
        classes=tuple(name for name, _ in pairs),
        base_classes=BASE_CLASSES,
        novel_classes=NOVEL_CLASSES,
        palette=[colour for _, colour in pairs])


@DATASETS.register_module()
class OVCocoDataset(DatasetOfRows, ReplacesUnreadable, CocoDataset):
    """COCO annotations of the 65 OV-COCO classes.

    ``METAINFO`` holds ``classes``, ``base_classes``, ``novel_classes`` and
    ``palette``. Classes are matched by name: a class that the JSON lacks
    keeps its index (mmdet's ``CocoDataset`` would shift the later ones), and
    annotations of names that ``classes`` lacks are dropped with a warning
    that counts them by name. The file is read entry by entry, checked and
    repaired (:func:`~mmdet_clim.datasets.coco_annotations.stream_coco`):
    boxes are clipped to their image, those entirely outside are dropped, and
    both are counted and reported. In training, an image that is unreadable,
    or of another size than the file says, is counted, reported and replaced
    by the next.

    Args:
        strict_classes (bool): Raise instead of dropping annotations of
            classes that ``classes`` lacks.
        ``*args``, ``**kwargs``: Of :class:`mmdet.datasets.CocoDataset`, and
            ``report_every``.

    Raises:
        ValueError: If the file cannot be repaired, no class of it is known
            or, with ``strict_classes``, one is not, or in training no box
            is left.
    """

    METAINFO = _ov_coco_metainfo()
    #: Whether annotations have no ``iscrowd``.
    LVIS = False

    def __init__(self, *args, strict_classes: bool = False, **kwargs) -> None:
        self.strict_classes = strict_classes
        super().__init__(*args, **kwargs)

    @classmethod
    def _load_metainfo(cls, metainfo=None) -> dict:
        """The metainfo, with a colour for each class."""
        merged = super()._load_metainfo(metainfo)
        first = merged['palette']
        if metainfo and 'classes' in metainfo and 'palette' not in metainfo:
            # COCO's colours are those of COCO's classes.
            first = ()
        merged['palette'] = class_palette(len(merged['classes']), first)
        return merged

    def load_data_list(self) -> PackedBoxes:
        """Read the JSON.

        Returns:
            PackedBoxes: One row per image, of which the sample is mmdet's.
        """
        packed = PackedBoxes()
        with get_local_path(
                self.ann_file, backend_args=self.backend_args) as path:
            checker = CocoChecker(
                self.ann_file,
                lvis=self.LVIS,
                read_size=file_sizes(self.data_prefix.get('img', '')),
                clip=True,
                skip_unreadable=not self.test_mode)
            stream_coco(Path(path), checker, packed.keep)
        packed.finish(checker)
        self._map_classes(packed)
        known = np.isin(packed.category_of, self.cat_ids)
        kept = crowds = 0
        for row in packed:
            for instance in self.sample_of(row)['instances']:
                kept += 1
                crowds += instance['ignore_flag']
        if kept < known.sum():
            self._log(f'dropped {known.sum() - kept} boxes narrower than a '
                      "pixel, or with a key 'ignore'")
        if not self.test_mode and kept == crowds:
            crowd = f', but for {kept} of crowds' if kept else ''
            raise ValueError(
                f'{self.ann_file}: expected boxes of the {len(self.cat_ids)} '
                f'classes to train on, got none that can be used{crowd}')
        return packed

    def load_proposals(self) -> None:
        raise ValueError(f'{type(self).__name__}: proposal_file: proposals of '
                         'a file are not supported')

    def filter_data(self) -> PackedBoxes:
        """As mmdet's, without a look at each sample."""
        wanted = self.filter_cfg or {}
        packed = self.data_list
        if self.test_mode or not wanted:
            return packed
        kept = packed.all_sizes[packed.index].min(1) >= wanted.get(
            'min_size', 0)
        if wanted.get('filter_empty_gt', False):
            known = np.isin(packed.category_of, self.cat_ids)
            kept &= np.bincount(
                packed.image_of[known], minlength=len(packed)) > 0
        return packed[np.flatnonzero(kept)]

    def sample_of(self, row: dict) -> dict:
        return self.parse_data_info(row)

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Make a sample of an image and its annotations.

        Args:
            raw_data_info (dict): ``raw_img_info`` and ``raw_ann_info``.

        Returns:
            dict: As in mmdet, with boxes within the image. An instance
            without a mask has an empty one, which mmdet ignores where it
            loads masks.
        """
        image = raw_data_info['raw_img_info']
        size = image['width'], image['height']
        inside = []
        for annotation in raw_data_info['raw_ann_info']:
            box = clipped_box(annotation['bbox'], size)
            if annotation['category_id'] in self.cat2label and box is not None:
                inside.append(dict(annotation, bbox=box))
        data = super().parse_data_info(
            dict(raw_img_info=image, raw_ann_info=inside))
        for instance in data['instances']:
            instance.setdefault('mask', [])
        return data

    def prepare_data(self, idx: int) -> Any:
        """The sample of this index, after a look at the image's size.

        Raises:
            UnreadableImageError: If the image is unreadable, or has another
                size than the annotations say: their boxes would lie
                elsewhere.
        """
        sample = self.get_data_info(idx)
        data = self.pipeline(sample)
        # Loaders leave here what they read.
        real = sample.get('ori_shape')
        stated = sample['height'], sample['width']
        if real is not None and max(abs(a - b)
                                    for a, b in zip(real, stated)) > 1:
            hint = ''
            if tuple(real) == stated[::-1]:
                hint = ': its EXIF rotation exchanges them'
            raise UnreadableImageError(
                f'img_path={sample["img_path"]!r}: {real[1]}x{real[0]} '
                f'pixels, expected {stated[1]}x{stated[0]} as in '
                f'{self.ann_file}{hint}',
                reason='of another size than the annotations say')
        return data

    def _map_classes(self, packed: PackedBoxes) -> None:
        """Set ``cat_ids`` and ``cat2label`` by name."""
        names = {c['id']: c['name'] for c in packed.categories}
        # Some of mmdet's own names end with a blank.
        index = {n.strip(): i for i, n in enumerate(self.metainfo['classes'])}
        self.cat2label = {
            i: index[name]
            for i, name in names.items() if name in index
        }
        self.cat_ids = sorted(self.cat2label, key=self.cat2label.get)
        if not self.cat_ids:
            raise ValueError(
                f'{self.ann_file}: none of its classes is in the vocabulary, '
                f'expected some of {tuple(index)}, got {tuple(names.values())}'
            )
        ids, counts = np.unique(packed.category_of, return_counts=True)
        dropped = Counter({
            names[i]: n
            for i, n in zip(ids.tolist(), counts.tolist())
            if i not in self.cat2label
        })
        if dropped:
            message = (f'{sum(dropped.values())} annotations of classes that '
                       f'the vocabulary lacks: {dict(dropped.most_common())}')
            if self.strict_classes:
                raise ValueError(f'{self.ann_file}: {message}')
            self._log(f'dropped {message}')
        absent = [n for n in index if n not in set(names.values())]
        if absent:
            # A base-only file lacks the novel classes, so it is no warning.
            self._log(
                f'has no category for {len(absent)} of {len(index)} classes: '
                f'{absent}', logging.INFO)

    def _log(self, message: str, level: int = logging.WARNING) -> None:
        """Log a message about the annotation file."""
        print_log(f'{self.ann_file}: {message}', 'current', level)


@DATASETS.register_module()
class OVCoco80Dataset(OVCocoDataset):
    """OV-COCO in the vocabulary of COCO's 80 classes.

    The published recipes train and test with all of COCO's classes; 15 of
    them are neither base nor novel, have no boxes in training and are not
    evaluated (REFERENCE.md, section 2).
    """

    METAINFO = dict(
        CocoDataset.METAINFO,
        base_classes=BASE_CLASSES,
        novel_classes=NOVEL_CLASSES)


@DATASETS.register_module()
class CheckedCocoDataset(OVCocoDataset):
    """COCO's 80 classes, or those of ``metainfo``, without a split.

    mmdet's ``CocoDataset`` with what :class:`OVCocoDataset` says of files,
    boxes, absent classes and unreadable images.
    """

    METAINFO = CocoDataset.METAINFO
