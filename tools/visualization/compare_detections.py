# Licensed under the Apache License, Version 2.0.
"""Draw what several trained models find in the same validation images."""
import argparse
import copy
from pathlib import Path
from typing import List, Sequence

# Before any config is read: it makes `mmdet_clim::` bases known.
import mmdet_clim  # noqa: F401  isort: skip
import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.logging import MMLogger
from mmengine.registry import init_default_scope
from mmengine.runner import load_checkpoint
from mmengine.structures import InstanceData

from mmdet_clim.datasets.image_files import read_image_file
from mmdet_clim.registry import DATASETS, MODELS
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
    parser.add_argument(
        '--novel-score-thr',
        type=float,
        help='the same for novel classes, which no box taught to score high')
    parser.add_argument('--device', default='cpu', help='device of the models')
    return parser.parse_args()


def choose_images(dataset, num: int, seed: int) -> List[dict]:
    """Random images, those with objects of a novel class first."""
    classes = dataset.metainfo['classes']
    novel = set(dataset.metainfo.get('novel_classes', ()))
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    order = np.random.default_rng(seed).permutation(len(infos)).tolist()
    order.sort(key=lambda i: not any(classes[x['bbox_label']] in novel
                                     for x in infos[i]['instances']))
    return [infos[i] for i in order[:num]]


def ground_truth(info: dict) -> InstanceData:
    """Boxes of an image of a dataset, xyxy pixels of the file."""
    kept = [x for x in info['instances'] if not x['ignore_flag']]
    return InstanceData(
        bboxes=torch.tensor([x['bbox'] for x in kept]).reshape(-1, 4),
        labels=torch.tensor([x['bbox_label'] for x in kept]).long())


def detect(cfg: Config, checkpoint: str, infos: Sequence[dict],
           device: str) -> List[InstanceData]:
    """Detections of a model, xyxy pixels of the file.

    mmdet's ``init_detector`` reads ``model.backbone`` of the config, which a
    wrapped detector does not have.
    """
    model = MODELS.build(cfg.model).to(device).eval()
    load_checkpoint(model, checkpoint, map_location='cpu')
    pipeline = Compose(cfg.val_dataloader.dataset.pipeline)
    with torch.no_grad():
        return [
            model.test_step(pseudo_collate([pipeline(copy.deepcopy(info))
                                            ]))[0].pred_instances.cpu()
            for info in infos
        ]


def main() -> None:
    """Draw the picture."""
    args = parse_args()
    configs = [Config.fromfile(config) for _, config, _ in args.model]
    init_default_scope(configs[0].get('default_scope', 'mmdet'))
    dataset = DATASETS.build(configs[0].val_dataloader.dataset)
    infos = choose_images(dataset, args.num, args.seed)
    detections = {
        name: detect(cfg, checkpoint, infos, args.device)
        for cfg, (name, _, checkpoint) in zip(configs, args.model)
    }
    picture = draw_detections(
        [read_image_file(info['img_path'])[..., ::-1] for info in infos],
        [ground_truth(info) for info in infos],
        detections,
        dataset.metainfo['classes'],
        dataset.metainfo.get('novel_classes', ()),
        args.score_thr,
        novel_score_thr=args.novel_score_thr)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(args.out), picture[..., ::-1])
    MMLogger.get_instance('compare_detections').info(
        f'{args.out}: {len(infos)} images, {len(detections)} models')


if __name__ == '__main__':
    main()
