# Licensed under the Apache License, Version 2.0.
"""Time and memory of OV-LVIS evaluation by each backend, side by side.

    python benchmarks/evaluation.py --images 100 --classes 1203
    python benchmarks/evaluation.py --images 5000 --detections 30 --kinds box

Random ground truth and detections of LVIS's kind. ``lvis`` is that package as
it stands, given lists of annotations and of detections; the others are
``OVLVISMetric``. Each evaluates the same data in a process of its own; the
figures are its CPU and wall seconds for the metric alone and what its peak
memory grew by. Then the largest difference of any of their numbers.
"""
import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as mask_utils

# What takes seconds to import is imported in the process that needs it.

HEIGHT, WIDTH = 480, 640
LVIS = 'lvis'
SIDES = (LVIS, 'faster_coco_eval', 'hotcoco')
#: Kind of AP -> how ``lvis`` calls it.
IOU_TYPES = dict(box='bbox', mask='segm')


def polygon(box: np.ndarray) -> list[float]:
    """An octagon in a box (x, y, w, h)."""
    angles = np.linspace(0, 2 * np.pi, 8, endpoint=False)
    x, y, w, h = box
    return np.stack(
        [x + w * (1 + np.cos(angles)) / 2, y + h * (1 + np.sin(angles)) / 2],
        1).ravel().round(2).tolist()


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    """Boxes (x, y, w, h) within the image."""
    size = rng.uniform(8, 200, (count, 2))
    corner = rng.uniform(0, 1, (count, 2)) * ((WIDTH, HEIGHT) - size)
    return np.concatenate([corner, size], 1)


def ground_truth(rng: np.random.Generator, images: int, classes: int,
                 count: int, with_masks: bool) -> tuple[dict, list[dict]]:
    """An LVIS file, and detections per image that are half right."""
    right = count // 2
    content = dict(
        images=[],
        annotations=[],
        categories=[
            dict(id=k + 1, name=f'class {k}', frequency='rcf'[k % 3])
            for k in range(classes)
        ])
    samples = []
    for number in range(1, images + 1):
        boxes = random_boxes(rng, 12)
        labels = rng.integers(0, classes, 12)
        for box, label in zip(boxes, labels.tolist()):
            content['annotations'].append(
                dict(
                    id=len(content['annotations']) + 1,
                    image_id=number,
                    category_id=label + 1,
                    bbox=box.tolist(),
                    area=float(box[2] * box[3]),
                    segmentation=[polygon(box)]))
        content['images'].append(
            dict(
                id=number,
                height=HEIGHT,
                width=WIDTH,
                neg_category_ids=rng.integers(1, classes + 1, 8).tolist(),
                not_exhaustive_category_ids=labels[:1].tolist()))
        source = rng.integers(0, 12, right)
        found = np.concatenate([
            boxes[source] + rng.normal(0, 4, (right, 4)),
            random_boxes(rng, count - right)
        ])
        found[:, 2:] = found[:, 2:].clip(2)
        masks = mask_utils.frPyObjects([polygon(box) for box in found], HEIGHT,
                                       WIDTH) if with_masks else []
        found[:, 2:] += found[:, :2]
        samples.append(
            dict(
                img_id=number,
                bboxes=found,
                scores=rng.random(count),
                labels=np.concatenate(
                    [labels[source],
                     rng.integers(0, classes, count - right)]),
                masks=masks))
    return content, samples


def by_lvis(content: dict, samples: list[dict],
            kinds: Sequence[str]) -> dict[str, float]:
    """The package's own way from lists to numbers."""
    from lvis import LVIS, LVISEval, LVISResults
    np.float = float  # which NumPy 1.24 removed

    class Loaded(LVIS):
        """Of a file that was read."""

        def _load_json(self, path: dict) -> dict:
            return path

    metrics = {}
    truth = Loaded(content)
    for kind in kinds:
        rows = []
        for sample in samples:
            corners = sample['bboxes']
            boxes = np.concatenate(
                [corners[:, :2], corners[:, 2:] - corners[:, :2]], 1)
            shapes = ('bbox',
                      boxes.tolist()) if kind == 'box' else ('segmentation',
                                                             sample['masks'])
            rows += [{
                'image_id': sample['img_id'],
                'category_id': label + 1,
                'score': score,
                shapes[0]: shape
            } for label, score, shape in zip(sample['labels'].tolist(
            ), sample['scores'].tolist(), shapes[1])]
        evaluation = LVISEval(truth, LVISResults(truth, rows), IOU_TYPES[kind])
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        metrics.update({
            f'ov_lvis/{kind}_{key.lower()}': float(value)
            for key, value in evaluation.results.items()
            if key in ('AP', 'AP50', 'AP75', 'APr', 'APc', 'APf')
        })
    return metrics


def metric_of(content: dict, backend: str, kinds: Sequence[str]) -> Any:
    """An evaluator with ``OVLVISMetric`` on a file."""
    import torch
    from mmengine.evaluator import Evaluator

    from mmdet_clim.evaluation import OVLVISMetric
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'lvis.json'
        path.write_text(json.dumps(content))
        evaluator = Evaluator(
            OVLVISMetric(str(path), kinds=kinds, backend=backend))
    evaluator.dataset_meta = dict(
        classes=[c['name'] for c in content['categories']])
    return evaluator


def as_predicted(sample: dict) -> Any:
    """The detections of an image as a detector gives them."""
    import torch
    from mmdet.structures import DetDataSample
    from mmengine.structures import InstanceData
    return DetDataSample(
        metainfo=dict(img_id=sample['img_id']),
        pred_instances=InstanceData(
            **({
                'masks': sample['masks']
            } if sample['masks'] else {}), **{
                key: torch.from_numpy(sample[key])
                for key in ('bboxes', 'scores', 'labels')
            }))


def measure(side: str, args: argparse.Namespace) -> dict:
    """Evaluate by one side: what it took and gave."""
    content, samples = ground_truth(
        np.random.default_rng(0), args.images, args.classes, args.detections,
        'mask' in args.kinds)
    if side != LVIS:
        evaluator = metric_of(content, side, args.kinds)
        instances = [as_predicted(sample) for sample in samples]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time(), time.perf_counter()
    if side == LVIS:
        metrics = by_lvis(content, samples, args.kinds)
    else:
        evaluator.process(instances)
        metrics = evaluator.evaluate(len(instances))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return dict(cpu=cpu, wall=wall, mib=grown / 1024, metrics=metrics)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--images', type=int, default=100)
    parser.add_argument('--classes', type=int, default=1203)
    parser.add_argument(
        '--detections', type=int, default=300, help='of an image')
    parser.add_argument(
        '--kinds', nargs='+', choices=list(IOU_TYPES), default=list(IOU_TYPES))
    parser.add_argument('--sides', nargs='+', choices=SIDES, default=SIDES)
    args = parser.parse_args()
    context = multiprocessing.get_context('spawn')
    results: dict[str, dict] = {}
    print(f'{" and ".join(args.kinds)} AP, {args.images} images, '
          f'{args.classes} classes, {args.detections * args.images} '
          f'detections\n{"":>18} {"CPU s":>8} {"wall s":>8} '
          f'{"peak MiB":>9} {"times":>7} {"AP":>8}')
    for side in args.sides:
        with ProcessPoolExecutor(1, context) as process:
            results[side] = process.submit(measure, side, args).result()
        result, first = results[side], results[args.sides[0]]
        print(
            f'{side:>18} {result["cpu"]:8.2f} {result["wall"]:8.2f} '
            f'{result["mib"]:9.0f} {first["cpu"] / result["cpu"]:7.1f} '
            f'{result["metrics"][f"ov_lvis/{args.kinds[0]}_ap"]:8.4f}',
            flush=True)
    first = results[args.sides[0]]['metrics']
    difference = max(
        abs(first[key] - result['metrics'][key])
        for result in results.values() for key in first)
    print(f'largest difference of any number: {difference:.1e}')


if __name__ == '__main__':
    main()
