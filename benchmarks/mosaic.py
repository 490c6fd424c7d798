# Licensed under the Apache License, Version 2.0.
"""Time and memory of mosaics: this project, its peers and the floor.

    python benchmarks/mosaic.py

One thread, JPEGs of 640x480 that it makes itself. All candidates are timed
in turns, round after round; the figures are medians over the rounds of CPU
time, which other processes disturb less than wall time.
"""
import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import mean, median

import cv2
import mmdet.datasets.transforms  # noqa: F401  (registers the peers)
import numpy as np
from mmdet.datasets import MultiImageMixDataset
from mmengine.dataset import Compose

from mmdet_clim.datasets import ImageTextDataset
from mmdet_clim.datasets.transforms.mosaic import fit_size

GRIDS = ((2, 2), (3, 3), (4, 4))
TILE, OUT = (400, 400), (800, 800)
CACHE_LIMIT_MIB = 100
ALL_NEW = 'MosaicCLIM, all new'
ALL_NEW_DATASET = 'MosaicCLIM, all new, MultiImageMixDataset'
FLOOR = 'floor: decode + resize of all new images'


def make_images(folder: Path, count: int) -> list[str]:
    """JPEGs with the spectrum of photographs: noise of every octave."""
    random = np.random.RandomState(0)
    paths = []
    for number in range(count):
        image = np.zeros((480, 640, 3), np.float32)
        for octave in range(1, 8):
            noise = random.randn(3 * 2**octave, 4 * 2**octave, 3)
            image += cv2.resize(
                noise.astype(np.float32), (640, 480),
                interpolation=cv2.INTER_CUBIC) * 55 / octave
        path = str(folder / f'{number}.jpg')
        cv2.imwrite(path,
                    np.clip(image + 120, 0, 255).astype(np.uint8),
                    [cv2.IMWRITE_JPEG_QUALITY, 90])
        paths.append(path)
    return paths


def sample_of(path: str) -> dict:
    """What a data set hands to its pipeline."""
    return dict(
        img_path=path,
        img_id=int(Path(path).stem),
        captions=['a photo'],
        tags=[0],
        instances=[],
        height=480,
        width=640)


def mosaic_config(**kwargs) -> dict:
    return dict(
        type='mmdet_clim.MosaicCLIM', tile_size=TILE, out_size=OUT, **kwargs)


def load_resize_flip(loader: str) -> list[dict]:
    return [
        dict(type=loader),
        dict(type='mmdet.Resize', scale=TILE, keep_ratio=True),
        dict(type='mmdet.RandomFlip', prob=0.5)
    ]


class OversizedMosaic:
    """The published recipe as a peer: tile at 400x400, then resize it all."""

    def __init__(self, cache_size: int = 1024) -> None:
        self.cache: list[np.ndarray] = []
        self.cache_size = cache_size

    def __call__(self, results: dict) -> np.ndarray:
        self.cache.append(results['img'].copy())
        del self.cache[:-self.cache_size]
        side = np.random.randint(2, 5)
        canvas = np.full((side * TILE[1], side * TILE[0], 3), 114, np.uint8)
        for number in range(side * side):
            image = self.cache[np.random.randint(len(self.cache))]
            row, col = divmod(number, side)
            top, left = row * TILE[1], col * TILE[0]
            canvas[top:top + image.shape[0],
                   left:left + image.shape[1]] = image
        return cv2.resize(canvas, OUT)


class Floor:
    """Only what all-new images of a grid cannot do without."""

    def __init__(self, paths: list[str], grid) -> None:
        self.paths = paths
        self.grid = grid

    def __call__(self, _: dict) -> None:
        rows, cols = self.grid
        fitted = fit_size((640, 480), (OUT[0] // cols, OUT[1] // rows))
        flag = cv2.IMREAD_COLOR if 2 * fitted[0] > 640 \
            else cv2.IMREAD_REDUCED_COLOR_2
        for index in np.random.randint(0, len(self.paths), rows * cols):
            data = np.fromfile(self.paths[index], np.uint8)
            cv2.resize(cv2.imdecode(data, flag), fitted)


class AllNew:
    """``MosaicCLIM`` on partners that are all new and still files."""

    def __init__(self, paths: list[str], grid) -> None:
        self.paths = paths
        self.mosaic = Compose([mosaic_config(grids=[grid])]).transforms[0]

    def __call__(self, sample: dict) -> dict:
        partners = self.mosaic.get_indexes(self.paths)
        mixed = [sample_of(self.paths[i]) for i in partners]
        return self.mosaic(dict(sample, mix_results=mixed))


def all_new_dataset(folder: Path, paths: list[str], grid) -> Callable:
    """The same through mmdet's ``MultiImageMixDataset``."""
    lines = [
        f'{{"file_name": "{path}", "caption": "a photo"}}' for path in paths
    ]
    (folder / 'own.jsonl').write_text('\n'.join(lines), encoding='utf-8')
    dataset = MultiImageMixDataset(
        ImageTextDataset(str(folder / 'own.jsonl')),
        [mosaic_config(grids=[grid])])
    return lambda sample: dataset[sample['img_id']]


def measure(candidates: dict[str, Callable], paths: list[str], rounds: int,
            calls: int) -> dict[str, float]:
    """Median over rounds of each candidate's CPU milliseconds per call."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for candidate in candidates.values():
        for number in range(60):
            candidate(sample_of(paths[number % len(paths)]))
    for _ in range(rounds):
        for name, candidate in candidates.items():
            samples = [sample_of(paths[n % len(paths)]) for n in range(calls)]
            start = time.process_time()
            for sample in samples:
                candidate(sample)
            times[name].append((time.process_time() - start) / calls * 1e3)
    return {name: median(values) for name, values in times.items()}


def resident_mib() -> float:
    """Resident memory of this process."""
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith('VmRSS'):
            return int(line.split()[1]) / 1024
    raise RuntimeError('/proc/self/status has no VmRSS')


def fill_cache(peer: bool, size, queue) -> None:
    """Memory that a full cache adds to a process, in MiB."""
    cv2.setNumThreads(0)
    mosaic = OversizedMosaic() if peer else Compose([mosaic_config()])
    image = np.random.randint(0, 255, (size[1], size[0], 3), np.uint8)

    def call(number: int) -> None:
        mosaic(dict(img=image.copy(), img_id=number, captions=['a'], tags=[]))

    call(0)
    before = resident_mib()
    for number in range(1100):
        call(number)
    queue.put(resident_mib() - before)


def cache_mib(peer: bool, size) -> float:
    """:func:`fill_cache` in a fresh process."""
    context = multiprocessing.get_context('spawn')
    queue = context.Queue()
    process = context.Process(target=fill_cache, args=(peer, size, queue))
    process.start()
    result = queue.get()
    process.join()
    return result


def report(name: str, value: float, limit: float, unit: str) -> None:
    """One claim with its target."""
    verdict = 'met' if value <= limit else 'NOT MET'
    print(f'  {name:58s} {value:7.2f} {unit}  target {limit:6.2f}  {verdict}')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--calls', type=int, default=40)
    parser.add_argument('--images', type=int, default=200)
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    np.random.seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = make_images(folder, arguments.images)
        peer_load = load_resize_flip('mmcv.LoadImageFromFile')
        own_load = load_resize_flip('mmdet_clim.LoadImageText')
        loaded = Compose(own_load)
        ready = [loaded(sample_of(p)) for p in paths]
        for results in ready:
            results.update(
                img=np.ascontiguousarray(results['img']),
                gt_bboxes=np.zeros((0, 4), np.float32),
                gt_bboxes_labels=np.zeros(0, np.int64),
                gt_ignore_flags=np.zeros(0, bool))

        def alone(config: dict) -> Callable:
            """A transform without loading, on images of 400x300."""
            transform = Compose([config])
            return lambda sample: transform(dict(ready[sample['img_id']]))

        def read(path: str, flag: int) -> None:
            cv2.imdecode(np.fromfile(path, np.uint8), flag)

        peer_mosaic = dict(type='mmdet.CachedMosaic', img_scale=TILE, prob=1.0)
        peer_boxes = [
            dict(type='mmdet.LoadAnnotations', with_bbox=True), peer_mosaic
        ]
        oversized = OversizedMosaic()
        times = measure(
            {
                'decode, full':
                lambda s: read(s['img_path'], cv2.IMREAD_COLOR),
                'decode, 1/2':
                lambda s: read(s['img_path'], cv2.IMREAD_REDUCED_COLOR_2),
                'decode, 1/4':
                lambda s: read(s['img_path'], cv2.IMREAD_REDUCED_COLOR_4),
                'peer: mmdet load + resize + flip':
                Compose(peer_load),
                'LoadImageText + resize + flip':
                loaded,
                'MosaicCLIM 2x2-4x4, with loading':
                Compose(own_load + [mosaic_config(grids=GRIDS)]),
                'MosaicCLIM 2x2-4x4, without loading':
                alone(mosaic_config(grids=GRIDS)),
                'peer: oversized 2x2-4x4, without loading':
                lambda s: oversized(ready[s['img_id']]),
                'MosaicCLIM 2x2, with loading':
                Compose(own_load + [mosaic_config(grids=[(2, 2)])]),
                'peer: mmdet CachedMosaic, with loading':
                Compose(peer_load + peer_boxes),
                'MosaicCLIM 2x2, without loading':
                alone(mosaic_config(grids=[(2, 2)])),
                'peer: mmdet CachedMosaic, without loading':
                alone(peer_mosaic),
                # By grid: with random ones a round would measure its luck.
                **{
                    f'{name} {grid[0]}x{grid[1]}': make(grid)
                    for grid in GRIDS
                    for name, make in {
                        ALL_NEW:
                        lambda g: AllNew(paths, g),
                        ALL_NEW_DATASET:
                        lambda g: all_new_dataset(folder, paths, g),
                        FLOOR:
                        lambda g: Floor(paths, g)
                    }.items()
                },
            },
            paths,
            arguments.rounds,
            arguments.calls)
    for name in (ALL_NEW, ALL_NEW_DATASET, FLOOR):
        times[f'{name}, mean'] = mean(times[f'{name} {rows}x{cols}']
                                      for rows, cols in GRIDS)
    print('CPU milliseconds per sample')
    for key, value in times.items():
        print(f'  {key:58s} {value:7.2f}')
    print('memory of a full cache, per worker')
    own = cache_mib(False, TILE)
    print(f'  {"MosaicCLIM, images of 400x400":58s} {own:7.1f} MiB')
    print(f'  {"MosaicCLIM, images of 400x300":58s} '
          f'{cache_mib(False, (400, 300)):7.1f} MiB')
    print(f'  {"peer: 1024 images of 400x300":58s} '
          f'{cache_mib(True, (400, 300)):7.1f} MiB')
    print('claims')
    report(
        'MosaicCLIM with loading / mmdet load + resize + flip',
        times['MosaicCLIM 2x2-4x4, with loading'] /
        times['peer: mmdet load + resize + flip'], 2, 'x ')
    report(
        'MosaicCLIM 2x2 / CachedMosaic, both with loading',
        times['MosaicCLIM 2x2, with loading'] /
        times['peer: mmdet CachedMosaic, with loading'], 1, 'x ')
    report(
        'MosaicCLIM 2x2 / CachedMosaic, both without loading',
        times['MosaicCLIM 2x2, without loading'] /
        times['peer: mmdet CachedMosaic, without loading'], 1, 'x ')
    report('MosaicCLIM all new / floor',
           times[f'{ALL_NEW}, mean'] / times[f'{FLOOR}, mean'], 1.15, 'x ')
    report('MosaicCLIM all new in MultiImageMixDataset / floor',
           times[f'{ALL_NEW_DATASET}, mean'] / times[f'{FLOOR}, mean'], 1.15,
           'x ')
    report(
        'MosaicCLIM without loading / oversized recipe',
        times['MosaicCLIM 2x2-4x4, without loading'] /
        times['peer: oversized 2x2-4x4, without loading'], 1, 'x ')
    report('memory of the cache at 400x400', own, CACHE_LIMIT_MIB, 'MiB')


if __name__ == '__main__':
    main()
