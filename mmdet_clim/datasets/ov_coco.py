# Licensed under the Apache License, Version 2.0.
"""OV-COCO: 48 base and 17 novel classes of COCO."""
import logging
from collections import Counter
from typing import List

from mmdet.datasets import CocoDataset
from mmengine.fileio import get_local_path
from mmengine.logging import print_log

from mmdet_clim.registry import DATASETS

from .draws import DrawnSamples
from .unreadable import ReplacesUnreadable

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
class OVCocoDataset(DrawnSamples, ReplacesUnreadable, CocoDataset):
    """COCO annotations of the 65 OV-COCO classes.

    ``METAINFO`` holds ``classes``, ``base_classes``, ``novel_classes`` and
    ``palette``. Classes are matched by name: a class that the JSON lacks
    keeps its index (mmdet's ``CocoDataset`` would shift the later ones), and
    annotations of names that ``classes`` lacks are dropped with a warning
    that counts them by name. Boxes are clipped to their image; those
    entirely outside are dropped; both are counted and reported. An
    unreadable image in training is counted, reported and replaced by the
    next.

    Args:
        strict_classes (bool): Raise instead of dropping annotations of
            classes that ``classes`` lacks.
        ``*args``, ``**kwargs``: Of :class:`mmdet.datasets.CocoDataset`, and
            ``report_every``.

    Raises:
        ValueError: If a class name stands twice in the JSON, a bounding box
            is not four finite numbers, no class of the JSON is known, or,
            with ``strict_classes``, one is not.
    """

    METAINFO = _ov_coco_metainfo()

    def __init__(self, *args, strict_classes: bool = False, **kwargs) -> None:
        self.strict_classes = strict_classes
        self._clipped_boxes = 0
        self._outside_boxes = 0
        super().__init__(*args, **kwargs)

    def load_data_list(self) -> List[dict]:
        """Read the JSON.

        Returns:
            list[dict]: One entry per image, as in mmdet.
        """
        with get_local_path(
                self.ann_file, backend_args=self.backend_args) as path:
            coco = self.COCOAPI(path)
        self._map_classes(coco)
        self.cat_img_map = coco.cat_img_map
        data_list = []
        for img_id in coco.get_img_ids():
            image = coco.load_imgs([img_id])[0]
            annotations = coco.load_anns(coco.get_ann_ids(img_ids=[img_id]))
            data_list.append(
                self.parse_data_info(
                    dict(
                        raw_img_info=dict(image, img_id=img_id),
                        raw_ann_info=annotations)))
        if self._clipped_boxes or self._outside_boxes:
            self._log(f'{self._clipped_boxes} boxes reach out of their image '
                      f'and were clipped, {self._outside_boxes} lie outside '
                      'and were dropped')
        return data_list

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Make a sample of an image and its annotations.

        Args:
            raw_data_info (dict): ``raw_img_info`` and ``raw_ann_info``.

        Returns:
            dict: As in mmdet, with boxes within the image.
        """
        image = raw_data_info['raw_img_info']
        inside = []
        for annotation in raw_data_info['raw_ann_info']:
            if annotation['category_id'] not in self.cat2label:
                continue
            box = self._clip(annotation, image)
            if box is not None:
                inside.append(dict(annotation, bbox=box))
        return super().parse_data_info(
            dict(raw_img_info=image, raw_ann_info=inside))

    def _clip(self, annotation: dict, image: dict):
        """The box (x, y, w, h) within its image, None if outside."""
        box = annotation['bbox']
        if len(box) != 4 or not all(abs(v) < float('inf') for v in box):
            raise ValueError(
                f"{self.ann_file}: annotation {annotation.get('id')}: key "
                f"'bbox' is {box!r}, expected four finite numbers x, y, w, h")
        left, top = max(box[0], 0), max(box[1], 0)
        right = min(box[0] + box[2], image['width'])
        bottom = min(box[1] + box[3], image['height'])
        if right <= left or bottom <= top:
            self._outside_boxes += 1
            return None
        # COCO rounds to hundredths: that much beyond an edge is no mistake.
        if (left - box[0] > 0.02 or top - box[1] > 0.02
                or box[0] + box[2] - right > 0.02
                or box[1] + box[3] - bottom > 0.02):
            self._clipped_boxes += 1
        return [left, top, right - left, bottom - top]

    def _map_classes(self, coco) -> None:
        """Set ``cat_ids`` and ``cat2label`` by name."""
        names = {c['id']: c['name'] for c in coco.dataset['categories']}
        twice = [n for n, k in Counter(names.values()).items() if k > 1]
        if twice:
            raise ValueError(f"{self.ann_file}: key 'categories' holds a name "
                             f'twice: {twice}')
        index = {n: i for i, n in enumerate(self.metainfo['classes'])}
        self.cat2label = {
            i: index[name]
            for i, name in names.items() if name in index
        }
        self.cat_ids = sorted(self.cat2label, key=self.cat2label.get)
        if not self.cat_ids:
            raise ValueError(
                f'{self.ann_file}: none of its classes is known, expected '
                f'some of {tuple(index)}, got {tuple(names.values())}')
        dropped = Counter(
            names.get(a['category_id'], f"category id {a['category_id']}")
            for a in coco.dataset.get('annotations', ())
            if a['category_id'] not in self.cat2label)
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
