# Licensed under the Apache License, Version 2.0.
r"""Show the captions nearest to regions, and the regions nearest to captions.

The regions are the model's best proposals in captioned images, or given boxes
(a CLIP has no proposals). Writes nearest_texts.png, nearest_regions.png and,
with all regions and texts, nearest.json.

    python tools/visualization/nearest_texts.py CONFIG CHECKPOINT \
        --captions captions.json --images photos --out-dir work_dirs/nearest
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, device_name, whole

# What takes seconds to import waits until the command line is read.
if TYPE_CHECKING:
    from torch import Tensor

    from mmdet_clim.visualization import ModelView, ReadRegion


class CaptionedImage(NamedTuple):
    """An image as it is shown, and where its pixels are in the file.

    Args:
        name (str): Path of the file.
        pixels (np.ndarray): uint8, (H, W, 3), BGR.
        scale (np.ndarray): (4,): xyxy of the file times this is xyxy of
            ``pixels``.
        captions (list[str]): Of the image.
    """

    name: str
    pixels: np.ndarray
    scale: np.ndarray
    captions: list[str]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        renamed={
            '--out': '--out-dir',
            '--num-images': '--num'
        },
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config of a detector or a CLIMOnCLIP')
    parser.add_argument('checkpoint')
    parser.add_argument(
        '--captions',
        required=True,
        help='any source of ImageTextDataset: .json, .jsonl or .tar')
    parser.add_argument(
        '--images',
        default='',
        help='folder that its file names are relative to')
    parser.add_argument(
        '--boxes',
        type=Path,
        help='COCO annotations of the same images, whose boxes are used '
        'instead of proposals')
    parser.add_argument(
        '--texts',
        nargs='+',
        default=[],
        help='further texts, or files of names, which come first in '
        'nearest_regions.png')
    parser.add_argument(
        '--num', type=int, default=100, help='number of images (%(default)s)')
    parser.add_argument(
        '--regions',
        type=int,
        default=5,
        help='proposals per image, best first (%(default)s)')
    parser.add_argument(
        '--top',
        type=int,
        default=4,
        help='number of nearest texts or regions of each (%(default)s)')
    parser.add_argument(
        '--rows',
        type=int,
        default=8,
        help='number of rows of a picture (%(default)s)')
    parser.add_argument(
        '--size',
        type=int,
        default=640,
        help="longer side of the model's input in pixels (%(default)s)")
    parser.add_argument(
        '--seed',
        type=whole(0, 2**32 - 1),
        default=0,
        help='seed for the choice of images')
    parser.add_argument('--device', type=device_name, default='cpu')
    parser.add_argument(
        '--out-dir', type=Path, required=True, help='folder for the results')
    args = parser.parse_args()
    for name in ('num', 'regions', 'top', 'rows', 'size'):
        value = vars(args)[name]
        if value < 1:
            parser.error(f'--{name.replace("_", "-")}: expected at least 1, '
                         f'got {value}')
    return args


def load_images(args: argparse.Namespace) -> list[CaptionedImage]:
    """Random captioned images."""
    import mmcv

    from mmdet_clim.datasets import ImageTextDataset
    dataset = ImageTextDataset(
        args.captions,
        data_prefix=dict(img=args.images),
        pipeline=[dict(type='mmdet_clim.LoadImageText')])
    order = np.random.default_rng(args.seed).permutation(len(dataset))
    images = []
    for index in order[:args.num].tolist():
        sample = dataset[index]
        pixels = mmcv.imrescale(sample['img'], (args.size, args.size))
        height, width = sample['ori_shape']
        across, down = pixels.shape[1] / width, pixels.shape[0] / height
        images.append(
            CaptionedImage(sample['img_path'], pixels,
                           np.array([across, down, across, down]),
                           sample['captions']))
    return images


def given_boxes(file: Path, images: list[CaptionedImage]) -> list[Tensor]:
    """Boxes of each image, xyxy of its ``pixels``, by the files' names."""
    import torch

    from mmdet_clim.datasets.coco_annotations import read_coco
    content = read_coco(file, need_sizes=False)
    ids: dict[str, int] = {}
    for image in content['images']:
        name = Path(image['file_name']).name
        if name in ids:
            raise ValueError(f'{file}: expected different file names, got '
                             f'{name} twice')
        ids[name] = image['id']
    boxes: dict[int, list] = {}
    for annotation in content['annotations']:
        x, y, width, height = annotation['bbox']
        boxes.setdefault(annotation['image_id'],
                         []).append([x, y, x + width, y + height])
    return [
        torch.tensor(
            boxes.get(ids.get(Path(image.name).name), []),
            dtype=torch.float32).view(-1, 4) *
        torch.tensor(image.scale, dtype=torch.float32) for image in images
    ]


def read_regions(view: ModelView, images: list[CaptionedImage],
                 args: argparse.Namespace):
    """Regions of all images, and their unit vectors (R, D)."""
    import torch
    import torch.nn.functional as F

    from mmdet_clim.visualization import ReadRegion
    boxes = None if args.boxes is None else given_boxes(args.boxes, images)
    regions, embeddings = [], []
    for index, image in enumerate(images):
        tensor = torch.from_numpy(image.pixels.transpose(2, 0, 1).copy())
        seen = view.look(tensor)
        if boxes is None:
            of_image = view.propose(seen, tensor.shape[1:])[:args.regions]
        else:
            of_image = boxes[index].to(args.device)
        if len(of_image):
            embeddings.append(F.normalize(view.read(seen, of_image), dim=1))
            regions += [ReadRegion(index, box) for box in of_image.cpu()]
    if not regions:
        raise ValueError(f'--captions {args.captions}: expected a region in '
                         f'one of {len(images)} images, found none')
    return regions, torch.cat(embeddings)


def as_json(images: list[CaptionedImage], regions: list[ReadRegion],
            texts: list[str], cosines: Tensor, top: int) -> dict:
    """What is nearest to each region and to each text; boxes of the files."""
    from mmdet_clim.visualization import best_of_images

    def place(region: ReadRegion) -> dict:
        image = images[region.image]
        box = region.box.numpy() / image.scale
        return dict(image=image.name, box=[round(x, 1) for x in box.tolist()])

    def cosine(region: int, text: int) -> float:
        return round(cosines[region, text].item(), 4)

    nearest = cosines.argsort(dim=1, descending=True, stable=True)[:, :top]
    best = best_of_images(cosines, [region.image for region in regions], top)
    return dict(
        regions=[
            dict(
                place(region),
                captions=images[region.image].captions,
                nearest=[
                    dict(text=texts[t], cosine=cosine(r, t))
                    for t in nearest[r].tolist()
                ]) for r, region in enumerate(regions)
        ],
        texts=[
            dict(
                text=text,
                nearest=[
                    dict(place(regions[r]), cosine=cosine(r, t))
                    for r in best[t]
                ]) for t, text in enumerate(texts)
        ])


def main() -> None:
    """Read the regions and the texts, and write what is nearest."""
    args = parse_args()
    import torch
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from mmdet_clim.datasets.class_names import with_files_read
    from mmdet_clim.datasets.preparation.files import write_json
    from mmdet_clim.engine.checkpoints import load_weights
    from mmdet_clim.registry import MODELS
    from mmdet_clim.visualization import (
        draw_nearest_regions,
        draw_nearest_texts,
        view_model,
    )
    args.texts = with_files_read(args.texts)
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    model = MODELS.build(cfg.model).to(args.device).eval()
    load_weights(model, args.checkpoint)
    view = view_model(model)
    images = load_images(args)
    texts = list(
        dict.fromkeys(
            [*args.texts, *(c for image in images for c in image.captions)]))
    with torch.no_grad():
        regions, embeddings = read_regions(view, images, args)
        cosines = (embeddings @ view.encode_texts(texts).t()).cpu()
    args.out_dir.mkdir(parents=True, exist_ok=True)
    write_json(
        args.out_dir / 'nearest.json',
        as_json(images, regions, texts, cosines, args.top),
        indent=1)
    pictures = [image.pixels[..., ::-1] for image in images]
    own = [[texts.index(c) for c in image.captions] for image in images]
    # A region of each image before the second of any.
    order, seen = [], [0] * len(images)
    for index, region in enumerate(regions):
        order.append((seen[region.image], index))
        seen[region.image] += 1
    rows = [index for _, index in sorted(order)][:args.rows]
    draw_nearest_texts(pictures, [regions[r] for r in rows], texts, own,
                       cosines[rows],
                       args.top).save(args.out_dir / 'nearest_texts.png')
    draw_nearest_regions(pictures, regions, texts[:args.rows], own,
                         cosines[:, :args.rows],
                         args.top).save(args.out_dir / 'nearest_regions.png')
    print(args.out_dir / 'nearest.json')


if __name__ == '__main__':
    run_command(main)
