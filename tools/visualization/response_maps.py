# Licensed under the Apache License, Version 2.0.
r"""Draw where detectors or CLIPs respond to texts, and their features.

One row of pictures per model (such as before and after CLIM) and image. The
columns are the image, a map per text with a common scale per column, and the
principal components (PCA) and clusters (k-means) of the features as colours.

    python tools/visualization/response_maps.py photo.jpg \
        --model before CONFIG CHECKPOINT --model after CONFIG CHECKPOINT \
        --texts cat "a red car" --out maps.png
"""
from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, device_name, whole

# What takes seconds to import waits until the command line is read.
if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Answers(NamedTuple):
    """Of one model to one image: maps (T, H, W) and features (D, h, w)."""

    responses: Tensor
    features: Tensor


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', type=Path, nargs='+')
    parser.add_argument(
        '--model',
        nargs=3,
        action='append',
        required=True,
        metavar=('NAME', 'CONFIG', 'CHECKPOINT'),
        help='name, config and checkpoint of a detector, wrapped or not, or a '
        'CLIMOnCLIP; repeat the option for each')
    parser.add_argument(
        '--texts',
        nargs='+',
        required=True,
        help='class names or sentences, embedded without a template, or files '
        'of names')
    parser.add_argument(
        '--out', type=Path, required=True, help='the PNG to write')
    parser.add_argument(
        '--size',
        type=whole(1),
        default=640,
        help="longer side of the model's input in pixels (%(default)s)")
    parser.add_argument(
        '--clusters',
        type=whole(1),
        default=6,
        help='number of clusters of k-means')
    parser.add_argument('--device', type=device_name, default='cpu')
    return parser.parse_args(argv)


def answer(name: str, config: str, checkpoint: str, images: list[Tensor],
           texts: list[str], device: str) -> list[Answers]:
    """What one model answers to each image (3, H, W), uint8, BGR."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from mmdet_clim.engine.checkpoints import load_weights
    from mmdet_clim.registry import MODELS
    from mmdet_clim.visualization import view_model
    cfg = Config.fromfile(config)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = MODELS.build(cfg.model).to(device).eval()
    load_weights(model, checkpoint)
    view = view_model(model, f'--model {name}')
    embeddings = view.encode_texts(texts)
    return [
        Answers(view.responses(seen, embeddings), view.dense_features(seen))
        for seen in map(view.look, images)
    ]


def main(argv: list[str] | None = None) -> None:
    """Draw the picture."""
    args = parse_args(argv)
    import mmcv
    import torch

    from mmdet_clim.datasets.class_names import with_files_read
    from mmdet_clim.datasets.image_files import read_image_file
    from mmdet_clim.files import atomic_path
    from mmdet_clim.visualization import picture_grid
    args.texts = with_files_read(args.texts)
    loaded = [read_image_file(path) for path in args.images]
    images = [
        mmcv.imrescale(image, (args.size, args.size)) for image in loaded
    ]
    tensors = [
        torch.from_numpy(image.transpose(2, 0, 1).copy()) for image in images
    ]
    with torch.no_grad():
        answers = {
            name:
            answer(name, config, checkpoint, tensors, args.texts, args.device)
            for name, config, checkpoint in args.model
        }
    rows, names = [], []
    for index, image in enumerate(images):
        of_image = [answers[name][index] for name, _, _ in args.model]
        rows += _rows(image, of_image, args.clusters)
        names += [name for name, _, _ in args.model]
    heads = ['', *args.texts, 'features, PCA', 'features, k-means']
    picture = picture_grid(rows, heads, names)
    with atomic_path(args.out) as beside:
        picture.save(beside, 'PNG')
    print(args.out)


def _rows(image: np.ndarray, answers: list[Answers],
          clusters: int) -> list[list[np.ndarray]]:
    """One row per model for an image; the models share a column's scale."""
    from mmdet_clim.visualization import (
        cluster_colours,
        pca_colours,
        response_rows,
    )
    height, width = image.shape[:2]
    rgb = image[..., ::-1]
    rows = []
    for of_model, maps in zip(
            answers, response_rows(rgb, [a.responses for a in answers])):
        padded = of_model.responses.shape[1:]
        shown = [
            math.ceil(cells * side / full)
            for cells, side, full in zip(of_model.features.shape[1:], (
                height, width), padded)
        ]
        features = [of_model.features[:, :shown[0], :shown[1]]]
        rows.append([
            rgb, *maps, *pca_colours(features),
            *cluster_colours(features, clusters)
        ])
    return rows


if __name__ == '__main__':
    run_command(main)
