# Licensed under the Apache License, Version 2.0.
r"""Draw the detections of several detectors in the same validation images.

The images are the first by id with an object of a novel class of at least
LEAST_SIDE pixels on both sides. For each class and detector, the best
detections are drawn, as many as the class has objects in all validation
images. Like AP, this depends on the ranking of the detections of a class, so
scores need not be comparable, and all detectors have equally many boxes.
Wrong ones (IoU below 0.5 with every unmatched object of their class) are
dashed.

The detections are what ``OVCocoMetric(outfile_prefix=...)`` writes:

    python tools/test.py CONFIG CHECKPOINT --cfg-options \
        test_evaluator.outfile_prefix=work_dirs/found
    python tools/visualization/compare_detections.py CONFIG \
        --found CLIM work_dirs/found.bbox.json --out compared.png
"""
from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser

# What takes seconds to import waits until the command line is read.
if TYPE_CHECKING:
    from mmengine.structures import InstanceData


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'config',
        help='config whose val_dataloader has the images and objects')
    parser.add_argument(
        '--found',
        nargs=2,
        action='append',
        required=True,
        metavar=('NAME', 'FILE'),
        help='a detector and its detections in all validation images, as COCO '
        'results; repeat the option for each')
    parser.add_argument(
        '--out', type=Path, required=True, help='the PNG to write')
    parser.add_argument('--num', type=int, default=10, help='number of images')
    parser.add_argument(
        '--least-side',
        type=float,
        default=48,
        help='minimum side of a novel object, in pixels of the image file')
    parser.add_argument(
        '--side',
        type=int,
        default=448,
        help='longer side of a drawn image in pixels')
    args = parser.parse_args()
    for key in ('num', 'side'):
        if vars(args)[key] < 1:
            parser.error(f'--{key}: expected at least 1, got '
                         f'{vars(args)[key]}')
    return args


def choose_images(infos: Sequence[dict], novel: Sequence[int], num: int,
                  least_side: float) -> list[dict]:
    """The first images by id that show a novel object well.

    Args:
        infos (list[dict]): What a dataset's ``get_data_info`` gives.
        novel (Sequence[int]): Labels of the novel classes.
        num (int): At most so many images.
        least_side (float): Of the object's box, in pixels.

    Raises:
        ValueError: If there is no such image.
    """
    chosen = []
    for info in sorted(infos, key=lambda info: info['img_id']):
        for label, (x1, y1, x2, y2) in _objects(info):
            if label in novel and min(x2 - x1, y2 - y1) >= least_side:
                chosen.append(info)
                break
    if not chosen:
        raise ValueError(
            'val_dataloader: expected an image with an object of a novel '
            f'class of at least {least_side:g} pixels on both sides, got none '
            f'in {len(infos)} images')
    return chosen[:num]


def _objects(info: dict) -> list[tuple[int, Sequence[float]]]:
    """Labels and boxes (xyxy) of an image, without crowds."""
    return [(x['bbox_label'], x['bbox']) for x in info['instances']
            if not x['ignore_flag']]


def coco_objects(infos: Sequence[dict]) -> list[dict]:
    """All objects as COCO has them, with labels as categories."""
    return [
        dict(
            image_id=info['img_id'],
            category_id=label,
            bbox=[x1, y1, x2 - x1, y2 - y1]) for info in infos
        for label, (x1, y1, x2, y2) in _objects(info)
    ]


def read_found(file: str, labels: Mapping[int, int]) -> list[dict]:
    """The detections of a file, with labels as categories.

    Raises:
        ValueError: If it is no such file, or of other categories.
    """
    try:
        content = json.loads(Path(file).read_text(encoding='utf-8'))
        return [
            dict(
                image_id=entry['image_id'],
                category_id=labels[entry['category_id']],
                bbox=[float(number) for number in entry['bbox']],
                score=float(entry['score'])) for entry in content
        ]
    except OSError as error:
        raise ValueError(f'--found: {error}') from error
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f'--found: {file}: expected COCO results (image_id, category_id '
            f"of the config's dataset, bbox, score), got {error!r}") from error


def by_image(found: Sequence[tuple[Mapping, bool]],
             infos: Sequence[dict]) -> list[InstanceData]:
    """Detections of each image, xyxy pixels of the file."""
    import torch
    from mmengine.structures import InstanceData
    of_image = defaultdict(list)
    for detection, correct in found:
        of_image[detection['image_id']].append((detection, correct))
    result = []
    for info in infos:
        here = of_image[info['img_id']]
        boxes = torch.tensor([d['bbox'] for d, _ in here]).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        result.append(
            InstanceData(
                bboxes=boxes,
                labels=torch.tensor([d['category_id'] for d, _ in here],
                                    dtype=torch.long),
                scores=torch.tensor([d['score'] for d, _ in here]),
                correct=torch.tensor([c for _, c in here], dtype=torch.bool)))
    return result


def ground_truth(info: dict) -> InstanceData:
    """Boxes of an image of a dataset, xyxy pixels of the file."""
    import torch
    from mmengine.structures import InstanceData
    kept = _objects(info)
    return InstanceData(
        bboxes=torch.tensor([box for _, box in kept]).reshape(-1, 4),
        labels=torch.tensor([label for label, _ in kept], dtype=torch.long))


def headline(name: str, found: Sequence[InstanceData], objects: Counter,
             novel: Sequence[int]) -> str:
    """Name of a detector, and how much of these images it finds."""
    hits: Counter = Counter()
    wrong = 0
    for instances in found:
        for label, correct in zip(instances.labels.tolist(),
                                  instances.correct.tolist()):
            hits[label in novel] += correct
            wrong += not correct
    return (f'{name}: {hits[True]} of {objects[True]} novel, {hits[False]} of '
            f'{objects[False]} base objects, {wrong} wrong')


def share_of_novel(found: Sequence[tuple[Mapping, bool]],
                   objects: Sequence[Mapping], novel: Sequence[int]) -> str:
    """How many novel objects of all images a detector finds."""
    hits = sum(correct for detection, correct in found
               if detection['category_id'] in novel)
    total = sum(entry['category_id'] in novel for entry in objects)
    return f'{hits} of {total}'


def compare(args: argparse.Namespace) -> int:
    """Draw the picture and return the number of images in it."""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope

    from mmdet_clim.datasets.image_files import read_image_file
    from mmdet_clim.evaluation import first_detections
    from mmdet_clim.registry import DATASETS
    from mmdet_clim.visualization import draw_detections
    cfg = Config.fromfile(args.config)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    dataset = DATASETS.build(cfg.val_dataloader.dataset)
    classes = dataset.metainfo['classes']
    novel_names = dataset.metainfo.get('novel_classes', ())
    novel = [i for i, name in enumerate(classes) if name in novel_names]
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    chosen = choose_images(infos, novel, args.num, args.least_side)
    objects = coco_objects(infos)
    shown = Counter(label in novel for info in chosen
                    for label, _ in _objects(info))
    columns: dict[str, list[InstanceData]] = {}
    for name, file in args.found:
        best = first_detections(objects, read_found(file, dataset.cat2label))
        found = by_image(best, chosen)
        columns[f'{headline(name, found, shown, novel)} (in all images: '
                f'{share_of_novel(best, objects, novel)} novel)'] = found
    picture = draw_detections(
        [read_image_file(info['img_path'])[..., ::-1] for info in chosen],
        [ground_truth(info) for info in chosen],
        columns,
        classes,
        novel_names,
        side=args.side,
        note='dashed: wrong. Of each class the best detections, as many as '
        f'it has objects in all {len(infos)} images; scores in percent')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(args.out)
    return len(chosen)


def main() -> None:
    """Draw the picture."""
    args = parse_args()
    try:
        number = compare(args)
    except ValueError as error:
        sys.exit(f'error: {error}')
    print(f'{args.out}: {number} images, {len(args.found)} detectors')


if __name__ == '__main__':
    run_command(main)
