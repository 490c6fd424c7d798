# Licensed under the Apache License, Version 2.0.
"""Box AP of base, novel and all OV-COCO classes in one pass."""
import io
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
from mmdet.datasets.api_wrappers import COCO
from mmengine.fileio import load
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from mmdet_clim.checks import check_choice
from mmdet_clim.registry import METRICS

from .backends import choose_backend
from .checked_coco_metric import CheckedCocoMetric
from .class_split import write_split
from .coco_api import BACKENDS

PROTOCOLS = ('all_images', 'detic')


@METRICS.register_module()
class OVCocoMetric(CheckedCocoMetric):
    """Box AP of base, novel and all classes in one pass over the val images.

    COCO's AP is a mean over classes and each class is matched apart, so one
    evaluation of all classes holds the numbers of every group: the AP of a
    group equals that of a separate evaluation on a JSON that keeps every
    image and only the annotations of that group (REFERENCE.md, section 7).

    AP is COCO's: 101 recall points, at most 100 detections per image and
    class, box IoU 0.50:0.05:0.95, every object size. All values are fractions
    in [0, 1], as those of :class:`mmdet.CocoMetric`, and are not rounded.

    Reported under the prefix ``ov_coco``: ``base_ap50``, ``novel_ap50``,
    ``all_ap50`` (IoU 0.50), ``base_map``, ``novel_map``, ``all_map`` (mean
    over the ten IoUs) and, with ``classwise``, ``ap50_{class}``.

    A class without ground truth in the evaluated images is left out of the
    means (COCO gives it -1) and is named in the log; a group in which no
    class has ground truth is NaN, '-' in the table. Crowd boxes are no ground
    truth.

    Args:
        ann_file (str, optional): COCO annotation file of the val images.
            Classes are found in it by name; it is checked, see
            :class:`CheckedCocoMetric`. Without it the ground truth is taken
            from ``instances`` of the data samples. Defaults to None.
        protocol (str): Which images are evaluated. ``'all_images'``: every
            image of ``ann_file``. ``'detic'``: only images that hold at
            least one annotation of a base or novel class, as in Detic's val
            file; detections on the others are not counted as false
            positives. Defaults to 'all_images'.
        backend (str, optional): ``'hotcoco'``, ``'faster_coco_eval'`` or
            ``'pycocotools'``, which give the same numbers. None for hotcoco
            where it is installed, else pycocotools. Defaults to None.
        classwise (bool): Also return and log the AP50 of each class.
            Defaults to False.
        outfile_prefix (str, optional): Keeps the detections in
            ``{outfile_prefix}.bbox.json``, and the split of the classes in
            ``{outfile_prefix}.split.json``. Defaults to None.
        backend_args (dict, optional): File backend of ``ann_file``.
            Defaults to None.
        collect_device (str): 'cpu' or 'gpu'. Defaults to 'cpu'.
        prefix (str, optional): Replaces ``ov_coco``. Defaults to None.

    Raises:
        ValueError: If ``protocol`` or ``backend`` is unknown, or ``ann_file``
            cannot be repaired.
        ModuleNotFoundError: If the package of ``backend`` is not installed.

    The metainfo of the dataset must hold ``classes``, ``base_classes`` and
    ``novel_classes``; one of the latter two may be empty. Predictions are
    ``pred_instances`` with ``bboxes`` (N, 4) in xyxy pixels of the original
    image, ``scores`` (N,) and ``labels`` (N,), indices into ``classes``.
    """

    default_prefix = 'ov_coco'

    def __init__(self,
                 ann_file: str | None = None,
                 protocol: str = 'all_images',
                 backend: str | None = None,
                 classwise: bool = False,
                 outfile_prefix: str | None = None,
                 backend_args: dict | None = None,
                 collect_device: str = 'cpu',
                 prefix: str | None = None) -> None:
        check_choice(PROTOCOLS, protocol=protocol)
        # Before the file is read.
        self.backend = choose_backend(backend, BACKENDS, 'pycocotools')
        super().__init__(
            ann_file=ann_file,
            metric='bbox',
            classwise=classwise,
            outfile_prefix=outfile_prefix,
            backend_args=backend_args,
            collect_device=collect_device,
            prefix=prefix)
        self.protocol = protocol

    def compute_metrics(self, results: list[tuple[dict,
                                                  dict]]) -> dict[str, float]:
        """Evaluate the collected detections.

        Args:
            results (list[tuple[dict, dict]]): Ground truth and prediction of
                each image, as :meth:`CocoMetric.process` made them.

        Returns:
            dict[str, float]: The metrics of the class docstring.

        Raises:
            ValueError: If the metainfo lacks the split, or a prediction has
                an image id or a label that the ground truth does not know.
        """
        logger: MMLogger = MMLogger.get_current_instance()
        classes, groups = self._split()
        if self.outfile_prefix:
            write_split(self.outfile_prefix, groups)
        with tempfile.TemporaryDirectory() as folder:
            outfile_prefix = self.outfile_prefix or str(
                Path(folder) / 'results')
            if self._coco_api is None:
                with redirect_stdout(io.StringIO()):
                    self._coco_api = COCO(
                        self.gt_to_coco_json([gt for gt, _ in results],
                                             outfile_prefix))
            category_ids = self._category_ids(classes)
            detections = self._detections([pred for _, pred in results],
                                          classes, category_ids,
                                          outfile_prefix)
        image_ids = self._image_ids(
            [category_ids[n] for n in groups['all'] if n in category_ids])
        seen = {pred['img_id'] for _, pred in results}
        unseen = [i for i in image_ids if i not in seen]
        if unseen:
            logger.warning(
                f'{len(unseen)} of {len(image_ids)} evaluated images have no '
                'prediction; their objects count as missed')

        names = [n for n in groups['all'] if n in category_ids]
        ap = dict.fromkeys(groups['all'], np.full(10, np.nan))
        if names and image_ids:
            ap.update(
                zip(
                    names,
                    self._average_precision(detections, image_ids,
                                            [category_ids[n] for n in names])))
        absent = [n for n in groups['all'] if np.isnan(ap[n]).all()]
        if absent:
            logger.info(f'{len(absent)} of {len(groups["all"])} classes have '
                        'no ground truth in the evaluated images and are '
                        f'left out: {", ".join(absent)}')

        metrics = {}
        for group, members in groups.items():
            present = np.array([ap[n] for n in members if n not in absent])
            metrics[f'{group}_ap50'] = (
                float(present[:, 0].mean()) if len(present) else float('nan'))
            metrics[f'{group}_map'] = (
                float(present.mean()) if len(present) else float('nan'))
        self._log_table(metrics, groups, absent, len(image_ids), logger)
        if self.classwise:
            metrics.update((f'ap50_{n}', float(ap[n][0]))
                           for n in groups['all'] if n not in absent)
        return metrics

    def _split(self) -> tuple[list[str], dict[str, list[str]]]:
        """Class names in label order, and the names of each group."""
        meta = self.dataset_meta or {}
        for key in ('classes', 'base_classes', 'novel_classes'):
            if meta.get(key) is None:
                raise ValueError(
                    f'dataset_meta[{key!r}]: OVCocoMetric needs the class '
                    "names under this key of the dataset's METAINFO, got "
                    f'{meta.get(key)!r} (keys: {sorted(meta)})')
        classes = list(meta['classes'])
        # One of them may be empty: all classes are base, or novel.
        base, novel = list(meta['base_classes']), list(meta['novel_classes'])
        if not base + novel:
            raise ValueError('dataset_meta: expected base_classes or '
                             'novel_classes, got two empty lists')
        twice = [n for n, c in Counter(base + novel).items() if c > 1]
        if twice:
            raise ValueError('dataset_meta: base_classes and novel_classes '
                             f'must not overlap, given twice: {twice}')
        unknown = sorted(set(base + novel) - set(classes))
        if unknown:
            raise ValueError('dataset_meta: base_classes and novel_classes '
                             f'must be among classes, these are not: '
                             f'{unknown}')
        return classes, dict(base=base, novel=novel, all=base + novel)

    def _category_ids(self, classes: Sequence[str]) -> dict[str, int]:
        """Category id of each class that the ground truth file lists."""
        by_name = {c['name']: i for i, c in self._coco_api.cats.items()}
        return {n: by_name[n] for n in classes if n in by_name}

    def _detections(self, preds: Sequence[dict], classes: Sequence[str],
                    category_ids: dict[str, int],
                    outfile_prefix: str) -> list[dict]:
        """Detections in COCO's result format, boxes in xywh pixels."""
        unknown = sorted({p['img_id']
                          for p in preds} - set(self._coco_api.imgs))
        if unknown:
            raise ValueError(
                f'img_id: {len(unknown)} predicted images are not in the '
                f'ground truth, for instance {unknown[0]!r}; is ann_file the '
                'one of the evaluated dataset?')
        # A class that the file does not list has no ground truth and no
        # category id: its detections cannot count for or against any class.
        listed = np.array([n in category_ids for n in classes])
        kept = []
        for pred in preds:
            labels = pred['labels']
            if labels.size and not 0 <= labels.min() <= labels.max() < len(
                    classes):
                raise ValueError(
                    f'labels: image {pred["img_id"]!r} has labels '
                    f'{labels.min()}..{labels.max()}, expected indices into '
                    f'the {len(classes)} classes of dataset_meta')
            keep = listed[labels]
            kept.append(
                dict(
                    img_id=pred['img_id'],
                    labels=labels[keep],
                    bboxes=pred['bboxes'][keep],
                    scores=pred['scores'][keep]))
        if not kept:
            return []
        self.cat_ids = [category_ids.get(n) for n in classes]
        return load(self.results2json(kept, outfile_prefix)['bbox'])

    def _image_ids(self, category_ids: Sequence[int]) -> list[int]:
        """Ids of the images that the protocol evaluates."""
        images = sorted(self._coco_api.imgs)
        if self.protocol == 'all_images':
            return images
        holding = set().union(*(self._coco_api.cat_img_map[c]
                                for c in category_ids))
        return [i for i in images if i in holding]

    def _average_precision(self, detections: list[dict],
                           image_ids: Sequence[int],
                           category_ids: Sequence[int]) -> np.ndarray:
        """AP of each category at each IoU, by the chosen backend.

        Args:
            detections (list[dict]): Detections in COCO's result format.
            image_ids (list[int]): The evaluated images.
            category_ids (list[int]): C distinct category ids.

        Returns:
            np.ndarray: Shape (C, 10), NaN where a category has no ground
            truth.
        """
        precision = BACKENDS[self.backend](self._coco_api.dataset, detections,
                                           image_ids, category_ids,
                                           self.iou_thrs).mean(axis=1)
        ap = np.where(precision < 0, np.nan, precision).T
        # the backends sort the categories by id
        return ap[np.argsort(np.argsort(category_ids))]

    def _log_table(self, metrics: dict[str, float],
                   groups: dict[str, list[str]], absent: Sequence[str],
                   num_images: int, logger: MMLogger) -> None:
        """Log AP50 and mAP of each group in percent."""
        rows = [['classes', 'evaluated', 'AP50', 'mAP']]
        for group, members in groups.items():
            rows.append([
                group, f'{len(set(members) - set(absent))}/{len(members)}',
                *(f'{100 * value:.1f}' if value == value else '-'
                  for value in (metrics[f'{group}_ap50'],
                                metrics[f'{group}_map']))
            ])
        logger.info(f'Box AP, protocol {self.protocol!r}, {num_images} '
                    f'images\n{AsciiTable(rows).table}')
