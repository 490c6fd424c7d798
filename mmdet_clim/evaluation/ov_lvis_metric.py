# Licensed under the Apache License, Version 2.0.
"""Box and mask AP of rare, common and frequent OV-LVIS classes."""
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmdet.structures.mask import encode_mask_results
from mmengine.evaluator import BaseMetric
from mmengine.fileio import get_local_path
from mmengine.logging import MMLogger
from terminaltables import AsciiTable

from mmdet_clim.datasets.coco_annotations import read_coco
from mmdet_clim.datasets.json_checks import typed_ids
from mmdet_clim.datasets.ov_lvis import class_name
from mmdet_clim.datasets.preparation.files import write_json
from mmdet_clim.registry import METRICS

from .backends import choose_backend
from .lvis_api import BACKENDS
from .lvis_detections import LVISDetections, evaluated
from .unreadable import without_unreadable

#: Kind of AP -> the IoU type that the packages call it.
IOU_TYPES = dict(box='bbox', mask='segm')
FREQUENCIES = dict(r='rare', c='common', f='frequent')


@METRICS.register_module()
class OVLVISMetric(BaseMetric):
    """Box and mask AP of OV-LVIS: all, rare (novel), common and frequent.

    AP is LVIS's (Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance
    Segmentation", CVPR 2019): 101 recall points, IoU 0.50:0.05:0.95, the 300
    best detections of an image over all classes, every object size. Images
    are annotated for some classes only: a detection counts as false where
    its class is annotated in the image or is one of ``neg_category_ids``, and
    not where it is one of ``not_exhaustive_category_ids``. Crowds do not
    exist. All values are fractions in [0, 1] and are not rounded.

    Reported under the prefix ``ov_lvis``: ``box_ap``, ``box_ap50``,
    ``box_ap75``, ``box_apr``, ``box_apc``, ``box_apf`` and the same with
    ``mask_``; with ``classwise`` also ``box_ap_{class}``, ``mask_ap_{class}``.

    A class without ground truth in ``ann_file`` is left out of the means
    (LVIS gives it -1); a group in which no class has ground truth is NaN.

    Args:
        ann_file (str): LVIS annotation file of the val images. Classes are
            found in it by name, and their frequency group is the file's.
        kinds (Sequence[str]): Out of 'box' and 'mask'.
        backend (str, optional): ``'hotcoco'``, ``'faster_coco_eval'``, or
            ``'lvis'``, LVIS's own package, which on the whole of LVIS needs
            long and many gigabytes. All give the same numbers. None for
            hotcoco where it is installed, else faster-coco-eval.
        classwise (bool): Also return the AP of each class.
        fixed_ap (bool): The AP of Dave et al., "Evaluating Large-Vocabulary
            Object Detectors: The Devil is in the Details" (2021): counted are
            the 10,000 best detections of each class over all images, and
            there is no limit per image, so that a class does not gain by
            silence of the others. The detector has to leave more than 300
            detections of an image for that (``max_per_img``).
        outfile_prefix (str, optional): Keeps the detections in
            ``{outfile_prefix}.{box,mask}.json``.
        backend_args (dict, optional): File backend of ``ann_file``.
        collect_device (str): 'cpu' or 'gpu'.
        prefix (str, optional): Replaces ``ov_lvis``.

    Raises:
        ValueError: If ``kinds`` or ``backend`` is unknown, or the file is not
            in LVIS's format or cannot be repaired.
        ModuleNotFoundError: If the package of ``backend`` is not installed.

    The metainfo of the dataset must hold ``classes``. Predictions are
    ``pred_instances`` with ``bboxes`` (N, 4) in xyxy pixels of the original
    image, ``scores`` (N,), ``labels`` (N,), indices into ``classes``, and for
    'mask' ``masks``, bool (N, H, W) at the size of the original image or N
    run-length encodings.
    """

    default_prefix = 'ov_lvis'

    def __init__(self,
                 ann_file: str,
                 kinds: Sequence[str] = ('box', 'mask'),
                 backend: str | None = None,
                 classwise: bool = False,
                 fixed_ap: bool = False,
                 outfile_prefix: str | None = None,
                 backend_args: dict | None = None,
                 collect_device: str = 'cpu',
                 prefix: str | None = None) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if not kinds or set(kinds) - set(IOU_TYPES):
            raise ValueError(f'kinds: expected some of {tuple(IOU_TYPES)}, '
                             f'got {kinds!r}')
        self.ann_file = ann_file
        self.kinds = tuple(kinds)
        self.backend = choose_backend(backend, BACKENDS, 'faster_coco_eval')
        self.classwise = classwise
        self.fixed_ap = fixed_ap
        self.outfile_prefix = outfile_prefix
        with get_local_path(ann_file, backend_args=backend_args) as path:
            self._ground_truth = _read_ground_truth(path, ann_file, 'mask'
                                                    in self.kinds)
        self._category_ids = {
            class_name(c['name']): c['id']
            for c in self._ground_truth['categories']
        }

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Keep the detections of a batch.

        Args:
            data_batch (dict): Not used.
            data_samples (Sequence[dict]): Samples with ``pred_instances``.
        """
        for sample in without_unreadable(data_samples):
            pred = sample['pred_instances']
            result = dict(
                img_id=sample['img_id'],
                **{
                    key: pred[key].cpu().numpy()
                    for key in ('bboxes', 'scores', 'labels')
                })
            if 'mask' in self.kinds:
                if 'masks' not in pred:
                    raise ValueError(
                        f"kinds: {self.kinds} needs 'masks' in "
                        f'pred_instances, got {sorted(pred.keys())}; for a '
                        "detector without masks use kinds=('box', )")
                masks = pred['masks']
                if not isinstance(masks, list):
                    masks = encode_mask_results(masks.detach().cpu().numpy())
                # Into a list MMEngine would look for tensors.
                result['masks'] = np.array(masks, dtype=object)
            self.results.append(result)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Evaluate the collected detections.

        Args:
            results (list[dict]): What :meth:`process` kept of each image.

        Returns:
            dict[str, float]: The metrics of the class docstring.

        Raises:
            ValueError: If the metainfo lacks the classes, or a prediction has
                an image id or a label that is not known.
        """
        logger: MMLogger = MMLogger.get_current_instance()
        category_of_label = self._match_classes(logger)
        self._check_images(results, logger)
        metrics: dict[str, float] = {}
        found = _detections(results, category_of_label, 'mask' in self.kinds)
        for kind in self.kinds:
            iou_type = IOU_TYPES[kind]
            if self.outfile_prefix:
                file = Path(f'{self.outfile_prefix}.{kind}.json')
                file.parent.mkdir(parents=True, exist_ok=True)
                write_json(file, found.as_dicts(iou_type))
            precision = BACKENDS[self.backend](self._ground_truth,
                                               evaluated(
                                                   found, self._ground_truth,
                                                   iou_type, self.fixed_ap),
                                               iou_type)
            metrics.update(self._summarise(kind, precision))
        self._log_table(metrics, logger)
        return metrics

    def _match_classes(self, logger: MMLogger) -> np.ndarray:
        """Category id of each label, -1 for classes the file lacks."""
        classes = (self.dataset_meta or {}).get('classes')
        if not classes:
            raise ValueError(
                "dataset_meta['classes']: OVLVISMetric needs the class names "
                "under this key of the dataset's metainfo, got "
                f'{classes!r}')
        absent = [n for n in classes if n not in self._category_ids]
        if len(absent) == len(classes):
            raise ValueError(f'{self.ann_file}: expected some of the classes '
                             f'{classes[:5]}..., got none of them')
        if absent:
            logger.info(f'{self.ann_file} has no category for {len(absent)} '
                        f'of {len(classes)} classes: {absent[:20]}')
        return np.array([self._category_ids.get(n, -1) for n in classes])

    def _check_images(self, results: Sequence[dict], logger: MMLogger) -> None:
        """Compare the predicted images with those of the file."""
        known = {image['id'] for image in self._ground_truth['images']}
        seen = {result['img_id'] for result in results}
        if seen - known:
            raise ValueError(
                f'img_id: {len(seen - known)} predicted images are not in '
                f'{self.ann_file}, for instance {min(seen - known)!r}')
        if known - seen:
            logger.warning(
                f'{len(known - seen)} of {len(known)} evaluated images have '
                'no prediction; their objects count as missed')

    def _summarise(self, kind: str, precision: np.ndarray) -> dict[str, float]:
        """Means of precision (IoU, recall, class) over groups of classes."""
        ap = precision.mean(axis=1)
        ap = np.where(ap < 0, np.nan, ap)
        categories = self._ground_truth['categories']
        groups = {
            letter: [c['frequency'] == letter for c in categories]
            for letter in FREQUENCIES
        }
        metrics = {
            f'{kind}_ap': _mean(ap),
            f'{kind}_ap50': _mean(ap[0]),
            f'{kind}_ap75': _mean(ap[5]),
            **{
                f'{kind}_ap{letter}': _mean(ap[:, members])
                for letter, members in groups.items()
            }
        }
        if self.classwise:
            for category, of_class in zip(categories, ap.T):
                if not np.isnan(of_class).any():
                    name = class_name(category['name'])
                    metrics[f'{kind}_ap_{name}'] = float(of_class.mean())
        return metrics

    def _log_table(self, metrics: dict[str, float], logger: MMLogger) -> None:
        """Log AP in percent."""
        heads = ('ap', 'ap50', 'ap75', 'apr', 'apc', 'apf')
        rows = [['', *(head.replace('ap', 'AP') for head in heads)]]
        for kind in self.kinds:
            rows.append([
                kind,
                *(f'{100 * metrics[f"{kind}_{head}"]:.1f}' for head in heads)
            ])
        logger.info(f'OV-LVIS, {len(self._ground_truth["images"])} images\n'
                    f'{AsciiTable(rows).table}')


def _mean(values: np.ndarray) -> float:
    """Mean of what is not NaN; NaN where there is nothing."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float('nan')


def _read_ground_truth(path: str, shown: str, with_masks: bool) -> dict:
    """Images, categories by id, and annotations, checked."""
    content = read_coco(
        path, shown=shown, lvis=True, need_names=False, need_sizes=with_masks)
    needed = dict(
        images=('id', 'height', 'width', 'neg_category_ids',
                'not_exhaustive_category_ids'),
        categories=('id', 'name', 'frequency'),
        annotations=('id', 'image_id', 'category_id', 'bbox', 'area'))
    if with_masks:
        needed['annotations'] += ('segmentation', )
    else:
        needed['images'] = ('id', *needed['images'][3:])
    kept = {}
    for key, fields in needed.items():
        for number, entry in enumerate(content[key]):
            if key == 'annotations' and not entry.get('segmentation'):
                # An empty one would count as a mask without a pixel.
                entry.pop('segmentation', None)
            if any(field not in entry for field in fields):
                raise ValueError(
                    f"{shown}: {key}[{number}] (id {entry['id']}): expected "
                    f'{fields}, got {sorted(entry)}')
        kept[key] = [{f: e[f] for f in fields} for e in content[key]]
    for image in kept['images']:
        for key in ('neg_category_ids', 'not_exhaustive_category_ids'):
            image[key] = typed_ids(image, key, f"{shown}: image {image['id']}")
    for category in kept['categories']:
        if category['frequency'] not in FREQUENCIES:
            raise ValueError(
                f"{shown}: category {category['name']!r}: key 'frequency' is "
                f"{category['frequency']!r}, expected one of "
                f'{tuple(FREQUENCIES)}')
    kept['categories'].sort(key=lambda category: category['id'])
    # Both packages take an id of 0 for "no match".
    kept['annotations'] = [
        dict(a, id=number)
        for number, a in enumerate(kept['annotations'], start=1)
    ]
    return kept


def _detections(results: Sequence[dict], category_of_label: np.ndarray,
                with_masks: bool) -> LVISDetections:
    """All detections of classes that the file has.

    A class that it lacks has no ground truth: its detections count neither
    for nor against any class.
    """
    for result in results:
        labels = result['labels']
        if labels.size and not 0 <= labels.min() <= labels.max() < len(
                category_of_label):
            raise ValueError(
                f'labels: image {result["img_id"]!r} has labels '
                f'{labels.min()}..{labels.max()}, expected indices into the '
                f'{len(category_of_label)} classes of dataset_meta')
    counts = [len(result['labels']) for result in results]
    labels, scores, corners = (np.concatenate([
        empty, *(result[key] for result in results)
    ]) for key, empty in (('labels', np.zeros(0, np.int64)), ('scores',
                                                              np.zeros(0)),
                          ('bboxes', np.zeros((0, 4)))))
    categories = category_of_label[labels]
    boxes = corners.astype(float)
    boxes[:, 2:] -= boxes[:, :2]
    found = LVISDetections(
        np.repeat([result['img_id'] for result in results],
                  counts).astype(np.int64), categories, scores.astype(float),
        boxes,
        np.concatenate([np.zeros(0, object), *(r['masks'] for r in results)])
        if with_masks else None)
    return found.select(categories >= 0)
