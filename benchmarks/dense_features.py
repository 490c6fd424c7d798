# Licensed under the Apache License, Version 2.0.
"""Time and peak memory of dense features and mosaics against plain ways.

Dense features (value path) of one image of 1024 pixels by a ViT-B/16 with
random weights, and the backward pass through its last 6 blocks, which is what
CLIM trains (REFERENCE.md, section 4). The plain way calls
``nn.MultiheadAttention`` per block, as it is called by default and with
``need_weights=False``.

The mosaics of a batch (2x2, 3x3 and 4x4 of 29 images) are compared with
tiling that resizes each image by itself.

Each way runs in a child process of its own. The peak is the child's
``ru_maxrss`` beyond what it had before the pass. Features and gradients are
compared with the plain way's, relative to the largest value; of mosaics, the
inner half of each tile of the 2x2 and the 4x4 one, as 1024 is not a multiple
of 3 and the joint resize sees the neighbour at an edge. The times are CPU
seconds: of features the least of ``--repeats`` of the child, of mosaics the
median of ``--repeats`` in one process, in which the two ways take turns.

The published refinement of CLIP makes its mosaics of images of 224 pixels:

    python benchmarks/dense_features.py
    python benchmarks/dense_features.py --mosaics --repeats 9
    python benchmarks/dense_features.py --mosaics --repeats 9 --image-size 224
"""
import argparse
import json
import logging
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mmdet_clim  # noqa: F401  (first: it prepares the stack)
from mmdet_clim.models.backbones import DenseImageTower
from mmdet_clim.models.clip_refinement.batch_mosaic import BatchMosaic
from mmdet_clim.models.clip_refinement.towers import unlock_blocks

FEATURES = dict(
    plain='nn.MultiheadAttention',
    weightless='the same, need_weights=False',
    tower='DenseImageTower')
MOSAICS = dict(each='each image resized by itself', batch='BatchMosaic')
TURNS = 'turns'
GRIDS = ((2, 2), (3, 3), (4, 4))


def plain_dense_features(visual: nn.Module, images: Tensor,
                         need_weights: bool) -> Tensor:
    """Dense features as one writes them down, by the tower's weights."""
    x = visual.conv1(images)
    grid = x.shape[-2:]
    x = x.flatten(2).transpose(1, 2)
    first, positions = visual.positional_embedding.split(
        [1, len(visual.positional_embedding) - 1])
    positions = F.interpolate(
        positions.t().unflatten(1, visual.grid_size)[None],
        grid,
        mode='bicubic')
    x = x + positions.flatten(2).transpose(1, 2)
    x = torch.cat([(visual.class_embedding + first).expand(len(x), 1, -1), x],
                  1)
    x = visual.ln_pre(x)
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        normed = block.ln_1(x)
        x = x + block.attn(
            normed, normed, normed, need_weights=need_weights)[0]
        x = x + block.mlp(block.ln_2(x))
    x = x[:, 1:]
    value = last.attn.in_proj_weight.chunk(3)[2]
    bias = last.attn.in_proj_bias.chunk(3)[2]
    x = x + last.attn.out_proj(F.linear(last.ln_1(x), value, bias))
    x = x + last.mlp(last.ln_2(x))
    x = F.normalize(visual.ln_post(x) @ visual.proj, dim=2)
    return x.transpose(1, 2).unflatten(2, grid)


def plain_mosaics(images: Tensor, height: int, width: int) -> Tensor:
    """Mosaics as one writes them down: an image after another."""
    rest = iter(images)
    mosaics = []
    for rows, cols in GRIDS:
        mosaic = images.new_zeros(3, height, width)
        tops = [round(height * i / rows) for i in range(rows + 1)]
        lefts = [round(width * i / cols) for i in range(cols + 1)]
        for top, bottom in zip(tops, tops[1:]):
            for left, right in zip(lefts, lefts[1:]):
                mosaic[:, top:bottom, left:right] = F.interpolate(
                    next(rest)[None],
                    size=(bottom - top, right - left),
                    mode='bicubic',
                    antialias=bottom - top < images.shape[2])[0]
        mosaics.append(mosaic)
    return torch.stack(mosaics)


def inner_tiles(mosaic: Tensor, side: int) -> Tensor:
    """The inner half of every tile of a mosaic of side x side."""
    size = mosaic.shape[-1] // side
    tiles = mosaic.unflatten(2, (side, size)).unflatten(1, (side, size))
    quarter = size // 4
    inner = slice(quarter, size - quarter)
    return tiles[:, :, inner, :, inner]


def timed(make: Callable[[], Tensor]) -> tuple[float, Tensor]:
    start = time.process_time()
    made = make()
    return time.process_time() - start, made


def mosaic_ways(args: argparse.Namespace) -> dict[str, Callable[[], Tensor]]:
    """The two ways of tiling the same images."""
    torch.manual_seed(0)
    count = sum(rows * cols for rows, cols in GRIDS)
    side = args.image_size or args.size
    images = torch.rand(count, 3, side, side)
    mosaic = BatchMosaic(GRIDS, size=(args.size, args.size))
    return dict(
        each=lambda: plain_mosaics(images, args.size, args.size),
        batch=lambda: mosaic(images, [(side, side)] * count).mosaics)


def time_mosaics(args: argparse.Namespace) -> dict[str, float]:
    """Median seconds of each way, which take turns."""
    ways = mosaic_ways(args)
    seconds: dict[str, list] = {way: [] for way in ways}
    for _ in range(args.repeats):
        for way, make in ways.items():
            seconds[way].append(timed(make)[0])
    return {way: statistics.median(taken) for way, taken in seconds.items()}


def measure_mosaics(args: argparse.Namespace) -> dict[str, float]:
    """One way of tiling in this process; write tiles to compare."""
    make = mosaic_ways(args)[args.child]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, made = timed(make)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    torch.save([inner_tiles(made[0], 2), inner_tiles(made[2], 4)], args.out)
    return dict(seconds=seconds, mebibytes=peak / 1024)


def measure_features(args: argparse.Namespace) -> dict[str, float]:
    """Time one way in this process; write its features and gradients."""
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    tower = DenseImageTower(args.model).eval()
    unlock_blocks(tower.visual, args.trained_blocks)
    images = torch.randn(1, 3, args.size, args.size)
    goal = torch.randn(1, tower.embed_dim, *(args.size // tower.stride, ) * 2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(args.repeats):
        tower.zero_grad()
        start = time.process_time()
        if args.child == 'tower':
            features = tower.dense_features(images)
        else:
            features = plain_dense_features(tower.visual, images,
                                            args.child == 'plain')
        (features * goal).sum().backward()
        seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    grads = [p.grad for p in tower.parameters() if p.grad is not None]
    torch.save([features.detach(), *grads], args.out)
    return dict(seconds=min(seconds), mebibytes=peak / 1024)


def run_child(args: argparse.Namespace, way: str,
              out: Path = Path()) -> dict[str, float]:
    command = [
        sys.executable, __file__, '--child', way, '--out',
        str(out), '--model', args.model, '--size',
        str(args.size), '--trained-blocks',
        str(args.trained_blocks), '--threads',
        str(args.threads), '--repeats',
        str(args.repeats)
    ]
    if args.image_size:
        command += ['--image-size', str(args.image_size)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def difference(path: Path, reference: Path) -> float:
    """The largest difference, relative to the largest value of its tensor."""
    ours = torch.load(path, weights_only=True)
    theirs = torch.load(reference, weights_only=True)
    return max(((a - b).abs().max() / b.abs().max()).item()
               for a, b in zip(ours, theirs))


def compare(args: argparse.Namespace, ways: dict[str, str],
            seconds: dict[str, float]) -> None:
    """Print one table, whose first row is the plain way.

    The times are the children's where ``seconds`` has none.
    """
    print(f'{"":32}{"CPU s":>9}{"of plain":>10}{"MiB":>9}{"of plain":>10}'
          f'{"difference":>12}')
    with TemporaryDirectory() as folder:
        reference, plain = None, None
        for way, label in ways.items():
            out = Path(folder) / f'{way}.pt'
            row = run_child(args, way, out)
            row['seconds'] = seconds.get(way, row['seconds'])
            reference, plain = reference or out, plain or row
            # What is smaller than the peak of building the model shows as 0.
            share = '-'
            if plain['mebibytes']:
                share = f'{row["mebibytes"] / plain["mebibytes"]:.2f}'
            print(
                f'{label:32}{row["seconds"]:9.3f}'
                f'{row["seconds"] / plain["seconds"]:10.2f}'
                f'{row["mebibytes"]:9.0f}{share:>10}'
                f'{difference(out, reference):12.1e}',
                flush=True)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument('--model', default='ViT-B-16')
    parser.add_argument('--size', type=int, default=1024, help='pixels')
    parser.add_argument(
        '--image-size',
        type=int,
        help='pixels of the images of the mosaics (default: as --size)')
    parser.add_argument(
        '--mosaics', action='store_true', help='no features, mosaics alone')
    parser.add_argument('--trained-blocks', type=int, default=6)
    parser.add_argument('--threads', type=int, default=1)
    parser.add_argument('--repeats', type=int, default=1)
    parser.add_argument(
        '--child',
        choices=[*FEATURES, *MOSAICS, TURNS],
        help=argparse.SUPPRESS)
    parser.add_argument('--out', type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    if args.child:
        measure = {
            TURNS: time_mosaics,
            **dict.fromkeys(FEATURES, measure_features)
        }
        print(json.dumps(measure.get(args.child, measure_mosaics)(args)))
        return
    if not args.mosaics:
        print(f'{args.model}, one image of {args.size} pixels, backward '
              f'through {args.trained_blocks} blocks, {args.threads} '
              'thread(s)\n')
        compare(args, FEATURES, {})
    print(f'\nMosaics of {args.size} pixels of 29 images of '
          f'{args.image_size or args.size}\n')
    compare(args, MOSAICS, run_child(args, TURNS))


if __name__ == '__main__':
    main()
