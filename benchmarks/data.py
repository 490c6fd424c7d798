# Licensed under the Apache License, Version 2.0.
"""What it takes to open large sources, and how fast a loader reads images.

    python benchmarks/data.py captions --rows 1000000
    python benchmarks/data.py boxes --megabytes 200
    python benchmarks/data.py boxes --megabytes 1100 --lvis
    python benchmarks/data.py loader

Each figure is of a process of its own: CPU seconds, and megabytes beyond its
imports: what stays of the process alone (``RssAnon``, without the pages of
mapped files) and the peak of all (``VmHWM``, with them). ``--peer``
measures the same of mmdet's CocoDataset or LVISV1Dataset, where it has the
like. webdataset is measured beside the loaders if it is installed.
``--checkout FOLDER`` measures another version of this package.
"""
import argparse
import importlib.util
import json
import multiprocessing
import os
import re
import resource
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

os.environ['OMP_NUM_THREADS'] = '1'


def memory() -> dict[str, float]:
    """Private and peak memory of this process in MB."""
    status = Path('/proc/self/status').read_text(encoding='utf-8')
    found = dict(re.findall(r'(RssAnon|VmHWM):\s+(\d+) kB', status))
    return {key: int(value) / 1000 for key, value in found.items()}


def run(function: Callable, argument: str, queue) -> None:
    """Body of a process: what the function tells, time and memory."""
    # What of the peak is the imports' own is no part of the figure.
    Path('/proc/self/clear_refs').write_text('5', encoding='utf-8')
    before = memory()
    seconds, wall = time.process_time(), time.perf_counter()
    # What was opened is held until memory is looked at.
    told, _held = function(argument)
    after = memory()
    queue.put(
        dict(
            told,
            cpu=time.process_time() - seconds,
            wall=time.perf_counter() - wall,
            stays=after['RssAnon'] - before['RssAnon'],
            peak=after['VmHWM'] - before['VmHWM']))


def measure(title: str, function: Callable, argument: str) -> None:
    """:func:`run` in a process of its own, printed in a line."""
    # A fork, which has the imports already.
    context = multiprocessing.get_context('fork')
    queue = context.SimpleQueue()
    process = context.Process(target=run, args=(function, argument, queue))
    process.start()
    process.join()
    if process.exitcode:
        print(f'  {title:44s} failed, exit code {process.exitcode}')
        return
    found = queue.get()
    figures = ', '.join(
        f'{key} {value:.4g}' if isinstance(value, float) else f'{key} {value}'
        for key, value in found.items())
    print(f'  {title:44s} {figures}', flush=True)


def write_captions(path: Path, rows: int) -> None:
    """JSON lines of one caption, with sizes and tags."""
    with open(path, 'w', encoding='utf-8') as file:
        for number in range(rows):
            tags = '' if number % 3 else '"dog"'
            file.write(
                f'{{"id": {number}, "file_name": "{number // 10_000:05d}/'
                f'{number:09d}.jpg", "height": 480, "width": 640, '
                f'"captions": ["a photograph of thing number {number} that '
                f'lies on a table"], "tags": [{tags}]}}\n')


def repeat_table(path: Path, times: int) -> None:
    """Put a longer table in the place of that of a source.

    Opening 12 M rows is measured so in seconds, where reading them for the
    first time takes minutes.
    """
    import pyarrow as pa
    table, = path.parent.glob('.mmdet_clim/*.captions.arrow')
    with pa.memory_map(str(table)) as file:
        reader = pa.ipc.open_file(file)
        last = reader.num_record_batches - 1
        with pa.OSFile(f'{table}.longer',
                       'wb') as out, pa.ipc.new_file(out,
                                                     reader.schema) as writer:
            for _ in range(times):
                for number in range(last):
                    writer.write_batch(reader.get_batch(number))
            facts = reader.get_batch_with_custom_metadata(last)
            writer.write_batch(
                facts.batch, custom_metadata=facts.custom_metadata)
    for rows in path.parent.glob('.mmdet_clim/*.npy'):
        rows.unlink()
    os.replace(f'{table}.longer', table)


def caption_sources(path: str, **options: Any) -> list[Any]:
    """A source for captions and for mosaics."""
    from mmdet_clim.datasets import ImageTextDataset
    return [
        ImageTextDataset(
            path, vocabulary=['dog', 'cat'], filter_cfg=wanted, **options)
        for wanted in (None, dict(tagged=True))
    ]


def open_captions(path: str) -> tuple[dict, Any]:
    """Open a source for captions and for mosaics, and draw a batch of both."""
    from mmdet_clim.datasets import MultiSourceDataset, MultiSourceSampler
    seconds = time.process_time()
    sources = caption_sources(path)
    opened = time.process_time()
    data = MultiSourceDataset(sources)
    sampler = MultiSourceSampler(data, 16, [1, 1], seed=0)
    batch = next(sampler.batches()) if hasattr(sampler, 'batches') else sampler
    drawn = time.process_time()
    for index in batch:
        data.get_data_info(int(index))
    sampled = time.process_time()
    grouped = MultiSourceSampler(
        data, 16, [1, 1], seed=0, aspect_grouping=True)
    next(iter(grouped))
    return dict(
        rows=len(data),
        open_s=opened - seconds,
        index_s=drawn - opened,
        samples_s=sampled - drawn,
        grouped_index_s=time.process_time() - sampled), (data, grouped)


def first_batch(path: str, start_method: str | None) -> tuple[dict, Any]:
    """Open a source and load a batch, in this process or by a worker.

    Args:
        start_method (str, optional): Of the worker.
    """
    from torch.utils.data import DataLoader

    from mmdet_clim.datasets import MultiSourceDataset, MultiSourceSampler
    seconds = time.process_time()
    wall = time.perf_counter()
    images = dict(img=str(Path(path).parent))
    data = MultiSourceDataset(
        caption_sources(path, data_prefix=images, pipeline=REDUCED))
    sampler = MultiSourceSampler(
        data, 16, [1, 1], seed=0, aspect_grouping=True)
    draws = list(islice(sampler, 16))
    if start_method is None:
        # The names are those of rows: the images have to be there.
        for draw in draws:
            image = Path(data.get_data_info(draw)['img_path'])
            image.parent.mkdir(exist_ok=True)
            image.unlink(missing_ok=True)
            os.link(Path(path).with_name('image.jpg'), image)
        seconds = time.process_time()
        wall = time.perf_counter()
    loader = DataLoader(
        data,
        16,
        sampler=draws,
        collate_fn=list,
        num_workers=0 if start_method is None else 1,
        multiprocessing_context=start_method)
    batch, = loader
    shapes = {len(sample['img'].shape) for sample in batch}
    assert shapes == {3} and len(batch) == 16
    waited = time.perf_counter() - wall
    del loader
    worker = resource.getrusage(resource.RUSAGE_CHILDREN)
    return dict(
        batch_wall_s=waited,
        batch_cpu_s=time.process_time() - seconds,
        worker_cpu_s=worker.ru_utime + worker.ru_stime), data


#: mmdet's needs one.
NO_IMAGES = dict(img='')


def open_boxes(path: str, lvis: bool) -> tuple[dict, Any]:
    """This package's data set of a file of boxes."""
    from mmdet_clim.datasets import OVCocoDataset, OVLVISDataset
    kind = OVLVISDataset if lvis else OVCocoDataset
    data = kind(ann_file=path, data_prefix=NO_IMAGES)
    return dict(images=len(data)), data


def open_boxes_by_mmdet(path: str, lvis: bool) -> tuple[dict, Any]:
    """The peer: a file of boxes by mmdet."""
    from mmdet.datasets import CocoDataset, LVISV1Dataset
    kind = LVISV1Dataset if lvis else CocoDataset
    data = kind(ann_file=path, data_prefix=NO_IMAGES)
    return dict(images=len(data)), data


def captions(arguments: argparse.Namespace, folder: Path) -> None:
    path = folder / 'captions.jsonl'
    write_captions(path, arguments.rows)
    print(f'{arguments.rows} captions, {path.stat().st_size / 1e6:.0f} MB')
    measure('captions and mosaics, first use', open_captions, str(path))
    if arguments.repeat > 1:
        repeat_table(path, arguments.repeat)
        measure('tagged rows found', open_captions, str(path))
    measure('captions and mosaics, later', open_captions, str(path))
    import cv2
    import numpy as np
    coarse = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    cv2.imwrite(str(folder / 'image.jpg'), cv2.resize(coarse, (1024, 768)))
    for title, method in (('first batch, opened before', None),
                          ('start and first batch, a forked worker',
                           'fork'), ('the same, a spawned worker', 'spawn')):
        measure(title, partial(first_batch, start_method=method), str(path))


def boxes(arguments: argparse.Namespace, folder: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    from prepare_data import write_annotations
    path = folder / 'instances.json'
    write_annotations(path, arguments.megabytes)
    print(f'boxes, {path.stat().st_size / 1e6:.0f} MB')
    own, peer = ('OVLVISDataset',
                 'LVISV1Dataset') if arguments.lvis else ('OVCocoDataset',
                                                          'CocoDataset')
    measure(own, partial(open_boxes, lvis=arguments.lvis), str(path))
    if arguments.peer:
        measure(f"mmdet's {peer}",
                partial(open_boxes_by_mmdet, lvis=arguments.lvis), str(path))


def write_images(folder: Path, count: int) -> None:
    """JPEGs of 1024x768 with an edge here and there, as files and as a tar."""
    import cv2
    import numpy as np
    draw = np.random.default_rng(0)
    lines, boxes = [], []
    (folder / 'images').mkdir()
    with tarfile.open(folder / 'images.tar', 'w') as shard:
        for number in range(count):
            coarse = draw.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            image = cv2.resize(coarse, (1024, 768))
            file = folder / 'images' / f'{number}.jpg'
            cv2.imwrite(str(file), image)
            file.with_suffix('.txt').write_text('a caption', encoding='utf-8')
            for path in (file, file.with_suffix('.txt')):
                shard.add(path, path.name)
            lines.append(
                json.dumps(dict(file_name=file.name, caption='a caption')))
            boxes.append(
                dict(id=number, file_name=file.name, width=1024, height=768))
    (folder / 'captions.jsonl').write_text('\n'.join(lines), encoding='utf-8')
    content = dict(
        images=boxes,
        categories=[dict(id=1, name='person')],
        annotations=[
            dict(
                id=i,
                image_id=i,
                category_id=1,
                iscrowd=0,
                area=100,
                bbox=[1, 1, 10, 10]) for i in range(count)
        ])
    (folder / 'boxes.json').write_text(json.dumps(content), encoding='utf-8')


SCALE = (400, 400)
PLAIN = [
    dict(type='LoadImageFromFile'),
    dict(type='mmdet.LoadAnnotations', with_bbox=True),
    dict(type='mmdet.Resize', scale=SCALE, keep_ratio=True)
]
REDUCED = [dict(type='mmdet_clim.LoadImageText', scale=SCALE), PLAIN[-1]]


def load_all(dataset) -> tuple[dict, Any]:
    """Samples per second and core of a loader without workers."""
    from torch.utils.data import DataLoader
    loader = DataLoader(dataset, batch_size=16, collate_fn=len)
    seconds = time.process_time()
    count = sum(loader)
    return dict(samples_per_s=count / (time.process_time() - seconds)), dataset


def boxes_by_mmdet(folder: str) -> tuple[dict, Any]:
    from mmdet.datasets import CocoDataset
    from mmdet.utils import register_all_modules
    register_all_modules()
    return load_all(
        CocoDataset(
            ann_file=f'{folder}/boxes.json',
            metainfo=dict(classes=('person', )),
            data_prefix=dict(img=f'{folder}/images'),
            pipeline=PLAIN))


def boxes_by_this(folder: str) -> tuple[dict, Any]:
    from mmdet_clim.datasets import CheckedCocoDataset
    return load_all(
        CheckedCocoDataset(
            ann_file=f'{folder}/boxes.json',
            metainfo=dict(classes=('person', )),
            data_prefix=dict(img=f'{folder}/images'),
            pipeline=PLAIN))


def captions_of_folder(folder: str) -> tuple[dict, Any]:
    from mmdet_clim.datasets import ImageTextDataset
    return load_all(
        ImageTextDataset(
            f'{folder}/captions.jsonl',
            data_prefix=dict(img=f'{folder}/images'),
            pipeline=REDUCED))


def captions_of_tar(folder: str) -> tuple[dict, Any]:
    from mmdet_clim.datasets import ImageTextDataset
    return load_all(ImageTextDataset(f'{folder}/images.tar', pipeline=REDUCED))


def captions_of_stream(folder: str, pipeline: list) -> tuple[dict, Any]:
    from mmdet_clim.datasets import ShardStreamDataset
    images = len(list(Path(folder, 'images').glob('*.jpg')))
    return load_all(
        ShardStreamDataset(
            f'{folder}/images.tar', images, buffer_size=16, pipeline=pipeline))


def captions_by_webdataset(folder: str, decode: bool) -> tuple[dict, Any]:
    """The peer: the same tar by webdataset, decoded with OpenCV."""
    import cv2
    import numpy as np
    import webdataset

    def load(sample: dict) -> tuple:
        image = sample['jpg']
        if decode:
            image = cv2.imdecode(
                np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
            scale = min(a / b for a, b in zip(SCALE, image.shape[1::-1]))
            image = cv2.resize(image, None, fx=scale, fy=scale)
        return image, sample['txt'].decode()

    return load_all(
        webdataset.WebDataset(f'{folder}/images.tar',
                              shardshuffle=False).shuffle(16).map(load))


def loader(arguments: argparse.Namespace, folder: Path) -> None:
    write_images(folder, arguments.images)
    print(f'{arguments.images} JPEGs of 1024x768, resized to fit {SCALE}')
    for title, function in (
        ("mmdet's CocoDataset and transforms, folder", boxes_by_mmdet),
        ('CheckedCocoDataset, the same transforms', boxes_by_this),
        ('ImageTextDataset, LoadImageText(scale), folder', captions_of_folder),
        ('ImageTextDataset, LoadImageText(scale), tar', captions_of_tar),
        ('ShardStreamDataset, LoadImageText(scale)',
         partial(captions_of_stream, pipeline=REDUCED)),
        ('ShardStreamDataset, encoded images',
         partial(captions_of_stream, pipeline=[])),
        ('webdataset, decoded and resized by OpenCV',
         partial(captions_by_webdataset, decode=True)),
        ('webdataset, encoded images',
         partial(captions_by_webdataset, decode=False)),
    ):
        if 'webdataset' in title and not importlib.util.find_spec(
                'webdataset'):
            print(f'  {title:44s} is not installed')
        else:
            measure(title, function, str(folder))


def main(given: list | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=['captions', 'boxes', 'loader'])
    parser.add_argument('--rows', type=int, default=1_000_000)
    parser.add_argument(
        '--repeat', type=int, default=1, help='rows of the later openings')
    parser.add_argument('--megabytes', type=float, default=200)
    parser.add_argument('--images', type=int, default=400)
    parser.add_argument('--lvis', action='store_true')
    parser.add_argument('--peer', action='store_true')
    parser.add_argument(
        '--checkout', default=str(Path(__file__).resolve().parents[1]))
    arguments = parser.parse_args(given)
    sys.path.insert(0, arguments.checkout)
    import cv2

    import mmdet_clim.datasets  # noqa: F401
    cv2.setNumThreads(0)
    with tempfile.TemporaryDirectory() as name:
        dict(
            captions=captions, boxes=boxes,
            loader=loader)[arguments.what](arguments, Path(name))


if __name__ == '__main__':
    main()
