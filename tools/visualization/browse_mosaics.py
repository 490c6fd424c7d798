# Licensed under the Apache License, Version 2.0.
"""Draw training samples as the model gets them: mosaics with their texts and
the rectangles of several tiles that the config's objectives sample (dashed),
captioned images, and images with boxes.
"""
from __future__ import annotations

import argparse
import random
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_cfg_options, whole

# What takes seconds to import waits until the command line is read.
if TYPE_CHECKING:
    from torch import nn


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description=__doc__, renamed={'--out': '--out-dir'})
    parser.add_argument('config', help='path of a training config')
    parser.add_argument(
        '--out-dir', type=Path, required=True, help='folder for the PNGs')
    parser.add_argument(
        '--num', type=int, default=4, help='number of samples of each source')
    parser.add_argument(
        '--warm-up',
        type=int,
        default=64,
        help='number of samples of each source to load before the first is '
        'drawn, so that the cache of mosaic partners is filled as in a '
        'running training')
    parser.add_argument(
        '--seed',
        type=whole(0, 2**32 - 1),
        default=0,
        help='seed for the choice of samples')
    parser.add_argument(
        '--side',
        type=whole(1),
        default=960,
        help='longer side of a drawn sample in pixels')
    add_cfg_options(parser)
    args = parser.parse_args()
    if args.num < 1:
        parser.error(f'--num: expected at least 1, got {args.num}')
    if args.warm_up < 0:
        parser.error(f'--warm-up: expected at least 0, got {args.warm_up}')
    return args


def objectives_of(model: dict, branch: str) -> list[nn.Module]:
    """The objectives that a config of ``CLIMDetector`` has for a branch.

    One with an image encoder distils: it composes no tiles and needs the
    weights of a CLIP to be built.
    """
    from mmdet_clim.registry import MODELS
    configs = model.get('objectives', {})
    names = model.get('branches', dict(mosaic=configs)).get(branch, ())
    return [
        MODELS.build(configs[name]) for name in names
        if 'image_encoder' not in configs[name]
    ]


def draw_sample(sample: dict, metainfo: dict, objectives: list[nn.Module],
                side: int) -> np.ndarray:
    """Draw one packed sample of any branch, as RGB."""
    from mmdet_clim.visualization import (
        composed_boxes,
        draw_boxes,
        draw_mosaic,
    )
    from mmdet_clim.visualization.canvas import to_rgb
    inputs, data_sample = sample['inputs'], sample['data_samples']
    classes = metainfo.get('classes')
    if 'mosaic_grid' in data_sample:
        return draw_mosaic(
            inputs,
            data_sample,
            classes,
            composed=composed_boxes(objectives, data_sample),
            side=side)
    return draw_boxes(
        to_rgb(inputs),
        data_sample.gt_instances,
        classes,
        metainfo.get('novel_classes', ()),
        side=side)


def main() -> None:
    """Draw the samples of every source of the training data."""
    args = parse_args()
    import torch
    from mmengine.logging import MMLogger
    from mmengine.registry import init_default_scope

    from mmdet_clim.engine.config_checks import read_config
    from mmdet_clim.registry import DATASETS
    logger = MMLogger.get_instance('browse_mosaics')
    cfg = read_config(args.config, args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    random.seed(args.seed)
    np.random.seed(args.seed)
    torch.manual_seed(args.seed)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    args.out_dir.mkdir(parents=True, exist_ok=True)
    objectives: dict[str, list[nn.Module]] = {}
    for source, part in enumerate(getattr(dataset, 'datasets', [dataset])):
        order = np.random.default_rng(args.seed).permutation(
            len(part)).tolist()
        for index in order[args.num:args.num + args.warm_up]:
            part[index]
        for number, index in enumerate(order[:args.num]):
            sample = part[index]
            branch = sample['data_samples'].get('branch', 'boxes')
            if branch not in objectives:
                objectives[branch] = objectives_of(
                    cfg.get('model', {}), branch)
            file = args.out_dir / f'{source}_{branch}_{number}.png'
            picture = draw_sample(sample, part.metainfo, objectives[branch],
                                  args.side)
            Image.fromarray(picture).save(file)
            logger.info(f'{file}: sample {index} of source {source}')


if __name__ == '__main__':
    run_command(main)
