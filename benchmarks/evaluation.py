# Licensed under the Apache License, Version 2.0.
"""Time and memory of OV-LVIS evaluation by both backends, side by side.

    python benchmarks/evaluation.py --images 100 --classes 1203

Random ground truth and detections of LVIS's kind. Each backend evaluates the
same data in a process of its own; the figures are its CPU and wall seconds
for the metric alone and what its peak memory grew by. Then the largest
difference of any of their numbers.
"""
import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Dict, List, Tuple

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData
from pycocotools import mask as mask_utils

from mmdet_clim.evaluation import OVLVISMetric

HEIGHT, WIDTH = 480, 640
BACKENDS = ('lvis', 'faster_coco_eval')


def polygon(box: np.ndarray) -> List[float]:
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


def ground_truth(rng: np.random.Generator, images: int,
                 classes: int) -> Tuple[dict, List[DetDataSample]]:
    """An LVIS file, and 300 detections per image that are half right."""
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
        source = rng.integers(0, 12, 150)
        found = np.concatenate([
            boxes[source] + rng.normal(0, 4, (150, 4)),
            random_boxes(rng, 150)
        ])
        found[:, 2:] = found[:, 2:].clip(2)
        masks = mask_utils.frPyObjects([polygon(box) for box in found], HEIGHT,
                                       WIDTH)
        found[:, 2:] += found[:, :2]
        samples.append(
            DetDataSample(
                metainfo=dict(img_id=number),
                pred_instances=InstanceData(
                    bboxes=torch.from_numpy(found),
                    scores=torch.from_numpy(rng.random(300)),
                    labels=torch.from_numpy(
                        np.concatenate(
                            [labels[source],
                             rng.integers(0, classes, 150)])),
                    masks=masks)))
    return content, samples


def measure(backend: str, args: argparse.Namespace) -> dict:
    """Evaluate by one backend: what it took and gave."""
    torch.set_num_threads(1)
    content, samples = ground_truth(
        np.random.default_rng(0), args.images, args.classes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'lvis.json'
        path.write_text(json.dumps(content))
        evaluator = Evaluator(OVLVISMetric(str(path), backend=backend))
    evaluator.dataset_meta = dict(
        classes=[c['name'] for c in content['categories']])
    evaluator.process(samples)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cpu, wall = time.process_time(), time.perf_counter()
    metrics = evaluator.evaluate(len(samples))
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return dict(cpu=cpu, wall=wall, mib=grown / 1024, metrics=metrics)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split('\n\n')[0])
    parser.add_argument('--images', type=int, default=100)
    parser.add_argument('--classes', type=int, default=1203)
    args = parser.parse_args()
    context = multiprocessing.get_context('spawn')
    results: Dict[str, dict] = {}
    for backend in BACKENDS:
        with ProcessPoolExecutor(1, context) as process:
            results[backend] = process.submit(measure, backend, args).result()
    print(f'box and mask AP, {args.images} images, {args.classes} classes, '
          f'{300 * args.images} detections')
    print(f'{"backend":>18} {"CPU s":>8} {"wall s":>8} {"peak MiB":>9} '
          f'{"box AP":>8} {"mask AP":>8}')
    for backend, result in results.items():
        metrics = result['metrics']
        print(f'{backend:>18} {result["cpu"]:8.2f} {result["wall"]:8.2f} '
              f'{result["mib"]:9.0f} {metrics["ov_lvis/box_ap"]:8.4f} '
              f'{metrics["ov_lvis/mask_ap"]:8.4f}')
    peer, own = (results[b]['metrics'] for b in BACKENDS)
    print('largest difference of any number: '
          f'{max(abs(peer[k] - own[k]) for k in peer):.1e}')


if __name__ == '__main__':
    main()
