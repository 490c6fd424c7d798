# Licensed under the Apache License, Version 2.0.
"""Draw what several trained models find in the same validation images."""
import argparse
from pathlib import Path
from typing import List

# Before any config is read: it makes `mmdet_clim::` bases known.
import mmdet_clim  # noqa: F401  isort: skip
import cv2
import numpy as np
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData

from mmdet_clim.registry import DATASETS
from mmdet_clim.visualization import draw_detections


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--model',
        nargs=3,
        action='append',
        required=True,
        metavar=('NAME', 'CONFIG', 'CHECKPOINT'),
        help='a model; give the option once for each')
    parser.add_argument(
        '--out', type=Path, required=True, help='the PNG to write')
    parser.add_argument('--num', type=int, default=6, help='images')
    parser.add_argument(
        '--seed', type=int, default=0, help='which images are drawn')
    parser.add_argument(
        '--score-thr',
        type=float,
        default=0.3,
        help='least score of a drawn detection')
    parser.add_argument('--device', default='cpu', help='device of the models')
    return parser.parse_args()


def choose_images(dataset, num: int, seed: int) -> List[dict]:
    """Random images, those with objects of a novel class first."""
    classes = dataset.metainfo['classes']
    novel = set(dataset.metainfo.get('novel_classes', ()))
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    order = np.random.default_rng(seed).permutation(len(infos)).tolist()
    order.sort(key=lambda i: not any(
        classes[x['bbox_label']] in novel for x in infos[i]['instances']))
    return [infos[i] for i in order[:num]]


def ground_truth(info: dict) -> InstanceData:
    """Boxes of an image of a dataset, xyxy pixels of the file."""
    kept = [x for x in info['instances'] if not x['ignore_flag']]
    return InstanceData(
        bboxes=torch.tensor([x['bbox'] for x in kept]).reshape(-1, 4),
        labels=torch.tensor([x['bbox_label'] for x in kept]).long())


def main() -> None:
    """Draw the picture."""
    args = parse_args()
    register_all_modules()
    dataset = DATASETS.build(
        Config.fromfile(args.model[0][1]).val_dataloader.dataset)
    infos = choose_images(dataset, args.num, args.seed)
    files = [info['img_path'] for info in infos]
    detections = {}
    for name, config, checkpoint in args.model:
        model = init_detector(config, checkpoint, device=args.device)
        detections[name] = [
            inference_detector(model, file).pred_instances.cpu()
            for file in files
        ]
    picture = draw_detections(
        [cv2.imread(file)[..., ::-1] for file in files],
        [ground_truth(info) for info in infos], detections,
        dataset.metainfo['classes'],
        dataset.metainfo.get('novel_classes', ()), args.score_thr)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.out), picture[..., ::-1])
    MMLogger.get_instance('compare_detections').info(
        f'{args.out}: {len(files)} images, {len(detections)} models')


if __name__ == '__main__':
    main()
