# Licensed under the Apache License, Version 2.0.
"""Peak memory and time of preparing large annotation files.

Draws a training file in COCO's layout and one in LVIS's, then makes OV-COCO's
and OV-LVIS's training files of them, each in a fresh process: by
``mmdet_clim.datasets.preparation``, and by the usual few lines that load the
file with ``json``, filter the list and dump it. Memory is what a process
takes at its peak beyond the peak of its imports.

Example:
    python benchmarks/prepare_data.py --megabytes 200
"""
import argparse
import json
import multiprocessing
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mmdet_clim.datasets import OVCocoDataset
from mmdet_clim.datasets.preparation.ov_coco import prepare_ov_coco
from mmdet_clim.datasets.preparation.ov_lvis import prepare_ov_lvis

CLASSES = OVCocoDataset.METAINFO['classes']
NOVEL = OVCocoDataset.METAINFO['novel_classes']
TRAIN = dict(coco='instances_train2017.json', lvis='lvis_v1_train.json')


def write_annotations(path: Path, megabytes: float) -> None:
    """Write a file of about this size, with a box per 40-point polygon."""
    draw = random.Random(0)
    images = int(megabytes * 180)
    categories: list[dict] = [
        dict(
            id=i, name=n, frequency='r' if n in NOVEL else 'f', image_count=1)
        for i, n in enumerate(CLASSES, 1)
    ]
    shapes = []
    for _ in range(1000):
        points = [round(640 * draw.random(), 2) for _ in range(80)]
        shapes.append(
            json.dumps(
                dict(
                    bbox=points[:4],
                    area=points[4],
                    iscrowd=0,
                    segmentation=[points]))[1:])
    with open(path, 'w', encoding='utf-8') as file:
        file.write('{"annotations": [')
        number = 0
        while file.tell() < megabytes * 1e6:
            file.write(', ' if number else '')
            file.write(f'{{"id": {number}, '
                       f'"image_id": {draw.randrange(images)}, '
                       f'"category_id": {draw.randrange(len(CLASSES)) + 1}, '
                       f'{draw.choice(shapes)}')
            number += 1
        file.write('], "images": ')
        json.dump([
            dict(
                id=i,
                file_name=f'{i:012d}.jpg',
                coco_url=f'http://images.cocodataset.org/train2017/{i}.jpg',
                height=480,
                width=640) for i in range(images)
        ], file)
        file.write(', "categories": ' + json.dumps(categories) + '}')


def load_and_dump(source: Path, out: Path, key: str) -> None:
    """The peer: everything in memory at once."""
    content = json.loads(source.read_text(encoding='utf-8'))
    dropped = {
        c['id']
        for c in content['categories']
        if (c['name'] in NOVEL if key == 'coco' else c['frequency'] == 'r')
    }
    content['annotations'] = [
        a for a in content['annotations'] if a['category_id'] not in dropped
    ]
    out.write_text(json.dumps(content), encoding='utf-8')


def own_coco(source: Path, out: Path) -> None:
    """``prepare_ov_coco.py --parts train``."""
    prepare_ov_coco(source.parent, out, ('train', ))


def peer_coco(source: Path, out: Path) -> None:
    """The same by loading it whole."""
    load_and_dump(source, out / 'peer.json', 'coco')


def own_lvis(source: Path, out: Path) -> None:
    """``prepare_ov_lvis.py``."""
    prepare_ov_lvis(source, out)


def peer_lvis(source: Path, out: Path) -> None:
    """The same, without category info, by loading it whole."""
    load_and_dump(source, out / 'peer.json', 'lvis')


def peak_mib() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(function: Callable, source: Path, queue) -> None:
    """Body of a process: memory beyond the imports, in MiB, and CPU s."""
    before, start = peak_mib(), time.process_time()
    with tempfile.TemporaryDirectory(dir=source.parent) as out:
        function(source, Path(out))
    queue.put((peak_mib() - before, time.process_time() - start))


def measure(function: Callable, source: Path) -> tuple[float, float]:
    """:func:`run` in a fresh process."""
    context = multiprocessing.get_context('spawn')
    queue = context.Queue()
    process = context.Process(target=run, args=(function, source, queue))
    process.start()
    result = queue.get()
    process.join()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--megabytes', type=float, default=200)
    arguments = parser.parse_args()
    functions: dict[str, dict[str, Callable]] = dict(
        coco={
            'prepare_ov_coco, train': own_coco,
            'peer: json.loads, filter, json.dumps': peer_coco
        },
        lvis={
            'prepare_ov_lvis': own_lvis,
            'peer: json.loads, filter, json.dumps': peer_lvis
        })
    with tempfile.TemporaryDirectory() as name:
        for kind, rows in functions.items():
            source = Path(name) / TRAIN[kind]
            write_annotations(source, arguments.megabytes)
            print(
                f'{source.name}, {source.stat().st_size / 1e6:.0f} MB',
                flush=True)
            for title, function in rows.items():
                memory, seconds = measure(function, source)
                print(
                    f'  {title:38s} {memory:8.1f} MiB at the peak, '
                    f'{seconds:6.1f} CPU s',
                    flush=True)
            source.unlink()


if __name__ == '__main__':
    main()
