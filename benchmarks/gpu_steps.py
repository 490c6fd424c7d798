# Licensed under the Apache License, Version 2.0.
"""Steps of the OV-COCO and OV-LVIS recipes on a GPU, and their loader.

The recipes' own models, batches and precisions, with random weights, pixels
and texts: none of these changes what a step costs. A row is a step of boxes
alone, then with plain captions, then with CLIM's mosaics; the time of the
branches is that of their forward passes. Syncs is torch's own count of the
operations of a step that make the host wait. The loader reads JPEGs of
640 x 480 that are written first. `gpu.sh` installs what it needs and runs it.

    python benchmarks/gpu_steps.py --out /tmp/gpu
    python benchmarks/gpu_steps.py --out /tmp/gpu --device cpu --tiny
"""
import argparse
import json
import os
import time
import traceback
import warnings
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import nn

import mmdet_clim  # noqa: F401
from mmdet_clim.engine.runner import CLIMRunner

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'detic'
# Config, classes, height and width of the images of each branch.
RECIPES = {
    'OV-COCO':
    ('ov_coco/detic_r50-caffe-c4_45k_ov-coco_captions-tags_clim.py', 65,
     dict(boxes=(800, 1216), captions=(800, 1088), mosaic=(800, 800))),
    'OV-LVIS':
    ('ov_lvis/detic_r50-centernet2_45k_ov-lvis_captions-tags_clim.py', 1203,
     dict(boxes=(640, 640), captions=(320, 320), mosaic=(640, 640))),
}
GRIDS = dict(captions=((1, 1), ), mosaic=((2, 2), (3, 3), (4, 4)))
SIDES = dict(
    boxes=['boxes'],
    captions=['boxes', 'captions'],
    CLIM=['boxes', 'captions', 'mosaic'])
NUM_CAPTIONS = 1000
NUM_BOXES = 8
DIM = 512


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--device', default='cuda')
    parser.add_argument('--seconds', type=float, default=300)
    parser.add_argument('--workers', type=int, default=min(16, os.cpu_count()))
    parser.add_argument(
        '--tiny',
        action='store_true',
        help='small images and few of them, to see whether it runs')
    return parser.parse_args()


def changed(node, texts: dict):
    """A config with made-up texts and without weights from files."""
    if isinstance(node, dict):
        node = {key: changed(value, texts) for key, value in node.items()}
        if str(node.get('type')).endswith('TextEncoder'):
            return dict(
                type='mmdet_clim.PrecomputedTextEncoder', file=texts['file'])
        if 'vocabulary' in node:
            node['vocabulary'] = texts['names']
            node['templates'] = ('{}', )
        if 'classifier' in node:  # the head has the vocabulary
            node.pop('templates', None)
            node['classifier']['templates'] = ('{}', )
        node.pop('init_cfg', None)
        node.pop('pretrained', None)
    elif isinstance(node, (list, tuple)):
        node = [changed(value, texts) for value in node]
    return node


def build_model(cfg: Config, num_classes: int, folder: Path) -> nn.Module:
    """The recipe's model."""
    names = [f'class {index}' for index in range(num_classes)]
    file = folder / f'{num_classes}.pth'
    captions = [f'caption {index}' for index in range(NUM_CAPTIONS)]
    torch.save(
        dict(
            names=names + captions,
            vectors=torch.randn(num_classes + NUM_CAPTIONS, DIM)), file)
    model = changed(cfg.model.to_dict(), dict(names=names, file=str(file)))
    model.pop('text_encoder')  # The detector's own.
    return MODELS.build(Config(dict(model=model)).model)


def make_batch(counts: dict[str, int], sizes: dict[str, tuple],
               num_classes: int) -> dict:
    """Random images of each branch, with what a step asks of them."""
    inputs, samples = [], []
    for branch, count in counts.items():
        height, width = sizes[branch]
        for index in range(count):
            meta = dict(
                img_shape=(height, width),
                ori_shape=(height, width),
                scale_factor=(1., 1.))
            if branch == 'boxes':
                truth = boxes_of(height, width, num_classes)
            else:
                truth, more = tiles_of(branch, index, height, width,
                                       num_classes)
                meta.update(more, branch=branch)
            sample = DetDataSample(metainfo=meta)
            sample.gt_instances = truth
            samples.append(sample)
            inputs.append(
                torch.randint(256, (3, height, width), dtype=torch.uint8))
    return dict(inputs=inputs, data_samples=samples)


def boxes_of(height: int, width: int, num_classes: int) -> InstanceData:
    """Some boxes and their masks."""
    size = torch.tensor([width, height, width, height])
    corner = torch.rand(NUM_BOXES, 2) * .6
    boxes = torch.cat([corner, corner + .1 + .3 * torch.rand(NUM_BOXES, 2)],
                      1) * size
    masks = np.zeros((NUM_BOXES, height, width), np.uint8)
    for mask, (x, y, right, bottom) in zip(masks, boxes.int().tolist()):
        mask[y:bottom, x:right] = 1
    return InstanceData(
        bboxes=boxes,
        labels=torch.randint(num_classes, (NUM_BOXES, )),
        masks=BitmapMasks(masks, height, width))


def tiles_of(branch: str, index: int, height: int, width: int,
             num_classes: int) -> tuple:
    """The tiles of an image, and their captions and tags."""
    rows, cols = GRIDS[branch][index % len(GRIDS[branch])]
    count = rows * cols
    keys = torch.randint(2**40, (count, )).tolist()
    boxes = [[
        width / cols * x, height / rows * y, width / cols * (x + 1),
        height / rows * (y + 1)
    ] for y in range(rows) for x in range(cols)]
    truth = InstanceData(
        bboxes=torch.tensor(boxes),
        labels=torch.zeros(count, dtype=torch.long))
    return truth, dict(
        captions=[[f'caption {key % NUM_CAPTIONS}'] for key in keys],
        tags=[[key % num_classes] for key in keys],
        image_ids=keys,
        image_keys=keys,
        mosaic_grid=(rows, cols))


class Clock:
    """Times of parts of a step, without waiting in the middle of it."""

    def __init__(self, device: str) -> None:
        self.on_gpu = device != 'cpu'
        self.marks: list[tuple] = []

    def mark(self, part: str) -> None:
        """What came since the last mark was this part."""
        if self.on_gpu:
            now = torch.cuda.Event(enable_timing=True)
            now.record()
        else:
            now = time.perf_counter()
        self.marks.append((part, now))

    def milliseconds(self) -> dict[str, float]:
        """Of each part."""
        found: dict[str, float] = {}
        if self.on_gpu:
            torch.cuda.synchronize()
        for (_, before), (part, now) in zip(self.marks, self.marks[1:]):
            spent = before.elapsed_time(now) if self.on_gpu else \
                1000 * (now - before)
            found[part] = found.get(part, 0) + spent
        return found


def step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: dict,
         branches: list[str], half: bool, device: str) -> dict[str, float]:
    """One training step; milliseconds of its parts."""
    data = model.data_preprocessor(batch, True)
    clock = Clock(device)
    clock.mark('start')
    losses = {}
    with torch.autocast(device, torch.bfloat16, enabled=half):
        for branch in branches:
            inputs = data['inputs'][branch]
            samples = data['data_samples'][branch]
            losses.update(
                model.detector.loss(inputs, samples) if branch ==
                'boxes' else model.branch_loss(branch, inputs, samples))
            clock.mark(branch)
        total, _ = model.parse_losses(losses)
    total.backward()
    clock.mark('backward')
    optimizer.step()
    optimizer.zero_grad()
    clock.mark('optimiser')
    return clock.milliseconds()


def count_syncs(model: nn.Module, optimizer: torch.optim.Optimizer,
                batch: dict, branches: list[str], half: bool) -> int:
    """Operations of a step that make the host wait."""
    torch.cuda.set_sync_debug_mode('warn')
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            step(model, optimizer, batch, branches, half, 'cuda')
    finally:
        torch.cuda.set_sync_debug_mode('default')
    return sum('synchronizing CUDA' in str(w.message) for w in caught)


def measure(recipe: str, args: argparse.Namespace, end: float) -> list[dict]:
    """Rows of one recipe, as many as there is time for."""
    config, num_classes, sizes = RECIPES[recipe]
    cfg = Config.fromfile(CONFIGS / config)
    counts = dict(
        zip(SIDES['CLIM'], cfg.train_dataloader.sampler.source_ratio))
    if args.tiny:
        counts = {branch: 1 for branch in counts}
        sizes = {branch: (128, 128) for branch in counts}
    rows = []
    with TemporaryDirectory() as folder:
        model = build_model(cfg, num_classes, Path(folder))
    model.to(args.device).train()
    # So small a rate changes nothing that takes time.
    optimizer = torch.optim.SGD(
        [p for p in model.parameters() if p.requires_grad], 1e-9, .9)
    for half in (False, True):
        try:
            for side in SIDES:
                if time.monotonic() < end:
                    rows.append(
                        dict(
                            recipe=recipe,
                            precision='bf16' if half else 'fp32',
                            **measure_side(model, optimizer, side, half,
                                           counts, sizes, num_classes, args)))
        except Exception:  # the other rows are worth having
            traceback.print_exc()
    return rows


def measure_side(model: nn.Module, optimizer: torch.optim.Optimizer, side: str,
                 half: bool, counts: dict[str, int], sizes: dict[str, tuple],
                 num_classes: int, args: argparse.Namespace) -> dict:
    """One row: steps of some branches."""
    own = {branch: counts[branch] for branch in SIDES[side]}
    batches = [make_batch(own, sizes, num_classes) for _ in range(2)]
    if args.device != 'cpu':
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    parts = []
    for number in range(2 if args.tiny else 15):
        begun = time.perf_counter()
        found = step(model, optimizer, batches[number % 2], SIDES[side], half,
                     args.device)
        found['step'] = 1000 * (time.perf_counter() - begun)
        parts.append(found)
    parts = parts[len(parts) // 3:]  # what is before is warm-up
    memory = 0 if args.device == 'cpu' else \
        torch.cuda.max_memory_allocated() / 2**30
    syncs = 0 if args.device == 'cpu' else count_syncs(
        model, optimizer, batches[0], SIDES[side], half)
    return dict(
        side=side,
        syncs=syncs,
        images=sum(own.values()),
        memory=memory,
        **{part: median(found[part] for found in parts)
           for part in parts[0]})


def write_images(root: Path, count: int) -> None:
    """JPEGs with captions and boxes, in the layout of OV-COCO."""
    import cv2
    from mmdet.datasets import CocoDataset
    rng = np.random.default_rng(0)
    for folder in ('train2017', 'annotations'):
        (root / folder).mkdir(parents=True)
    noise = rng.integers(0, 256, (48, 64, 3), np.uint8)
    images, boxes = [], []
    for number in range(1, count + 1):
        name = f'{number:012d}.jpg'
        picture = cv2.resize(
            np.roll(noise, number, 1), (640, 480),
            interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(root / 'train2017' / name), picture)
        images.append(
            dict(
                id=number,
                file_name=name,
                height=480,
                width=640,
                captions=[f'caption {number}'],
                pos_category_ids=[1]))
        boxes.append(
            dict(
                id=number,
                image_id=number,
                category_id=1,
                bbox=[10., 10., 100., 100.],
                area=1e4,
                iscrowd=0))
    categories = [
        dict(id=number + 1, name=name)
        for number, name in enumerate(CocoDataset.METAINFO['classes'])
    ]
    both = dict(images=images, categories=categories)
    (root / 'annotations/captions_train2017_tags.json').write_text(
        json.dumps(both))
    (root / 'annotations/instances_train2017_base.json').write_text(
        json.dumps(dict(both, annotations=boxes)))


def loader_rows(args: argparse.Namespace) -> list[dict]:
    """Samples per second of the OV-COCO recipe's loader, with CLIM."""
    batches = 4 if args.tiny else 60
    with TemporaryDirectory() as folder:
        root = Path(folder) / 'coco'
        write_images(root, 24 if args.tiny else 400)
        os.environ['OV_COCO_ROOT'] = f'{root}/'
        loader_cfg = Config.fromfile(CONFIGS /
                                     RECIPES['OV-COCO'][0]).train_dataloader
        rows = []
        for workers in sorted({min(2, args.workers), args.workers}):
            loader_cfg.update(
                num_workers=workers, persistent_workers=workers > 0)
            loader = iter(CLIMRunner.build_dataloader(loader_cfg.copy()))
            for _ in range(1 if args.tiny else 10):
                next(loader)
            start = time.perf_counter()
            count = sum(len(next(loader)['inputs']) for _ in range(batches))
            rows.append(
                dict(
                    workers=workers,
                    samples=count / (time.perf_counter() - start)))
            del loader
    return rows


def print_rows(rows: list[dict]) -> None:
    """The steps as a table."""
    print('| recipe | precision | branches | images | step, ms | boxes | '
          'captions | mosaic | backward | optimiser | GiB | syncs | '
          'share of time | share of images |')
    print('|---' * 14 + '|')
    for row in rows:
        alone = next(r for r in rows if r['side'] == 'boxes' and (
            r['recipe'], r['precision']) == (row['recipe'], row['precision']))
        # What the branches beside the boxes take of both.
        time_share = 1 - alone['step'] / row['step']
        image_share = 1 - alone['images'] / row['images']
        parts = ''.join(f' {row[part]:.1f} |' if part in row else ' |'
                        for part in ('boxes', 'captions', 'mosaic', 'backward',
                                     'optimiser'))
        print(f'| {row["recipe"]} | {row["precision"]} | {row["side"]} | '
              f'{row["images"]} | {row["step"]:.1f} |{parts} '
              f'{row["memory"]:.2f} | {row["syncs"]} | '
              f'{100 * time_share:.0f} % | {100 * image_share:.0f} % |')


def main() -> None:
    """Measure and print."""
    args = parse_args()
    end = time.monotonic() + args.seconds
    args.out.mkdir(parents=True, exist_ok=True)
    register_all_modules()
    torch.manual_seed(0)
    name = 'CPU' if args.device == 'cpu' else torch.cuda.get_device_name()
    print(f'{name}, torch {torch.__version__}\n')
    rows: list[dict] = []
    for recipe in RECIPES:
        rows += measure(recipe, args, end)
    print_rows(rows)
    loading = loader_rows(args) if time.monotonic() < end else []
    for row in loading:
        print(f'\nLoader of the OV-COCO recipe with CLIM, {row["workers"]} '
              f'workers: {row["samples"]:.0f} samples per second')
    (args.out / 'gpu.json').write_text(
        json.dumps(dict(device=name, steps=rows, loader=loading), indent=1))


if __name__ == '__main__':
    main()
