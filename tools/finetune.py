# Licensed under the Apache License, Version 2.0.
r"""From captioned images and a trained detector to a detector of one's words.

Checks the data, writes the resolved config, trains with CLIM, evaluates where
there are boxes to evaluate on, and leaves WORK_DIR/detector.py and
detector.pth, which plain mmdet loads (with `custom_imports` of mmdet_clim).

    python tools/finetune.py --detector CONFIG --checkpoint F \
        --images photos --captions captions.csv --vocabulary names.txt
"""
import argparse
import json
import sys
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

# First: it checks the stack that all the others need.
import mmdet_clim  # noqa: F401  isort: skip
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_clim.command import run_command
from mmdet_clim.datasets.preparation.command import add_overwrite, report
from mmdet_clim.datasets.preparation.own_captions import (
    prepare_image_text,
    read_synonyms,
)
from mmdet_clim.datasets.vocabulary import Vocabulary, build_vocabulary
from mmdet_clim.engine import prepare_cpu_processes
from mmdet_clim.engine.checkpoints import (
    detector_weights,
    save_atomically,
    strip_state_dict,
)
from mmdet_clim.engine.finetuning import (
    OwnData,
    finetune_config,
    plain_config,
)


def parse_args(argv: Optional[List[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--detector', type=Path, required=True, help='config')
    parser.add_argument('--checkpoint', type=Path, required=True)
    parser.add_argument(
        '--images', type=Path, required=True, help='folder of the images')
    parser.add_argument(
        '--captions',
        type=Path,
        help='.json (COCO captions, or a list of objects with file_name and '
        'caption), .jsonl, .csv or .tsv that names images below --images '
        '(default: a .txt beside each image)')
    parser.add_argument(
        '--vocabulary',
        type=Path,
        required=True,
        help='text file with a class name a line')
    parser.add_argument(
        '--synonyms',
        type=Path,
        help='JSON file of other words: {"couch": ["sofa"]}')
    parser.add_argument(
        '--boxes', type=Path, help='COCO JSON with boxes of some classes')
    parser.add_argument(
        '--val-boxes', type=Path, help='COCO JSON to evaluate on')
    parser.add_argument(
        '--box-images',
        type=Path,
        help='folder of the images of --boxes (default: --images)')
    parser.add_argument(
        '--val-images',
        type=Path,
        help='folder of the images of --val-boxes (default: --box-images)')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/finetune'))
    parser.add_argument('--iterations', type=int, default=1000)
    parser.add_argument('--batch-size', type=int, default=8)
    parser.add_argument('--lr', type=float, default=1e-4)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=int, default=2)
    add_overwrite(parser)
    args = parser.parse_args(argv)
    for key in ('detector', 'checkpoint', 'images', 'captions', 'vocabulary',
                'synonyms', 'boxes', 'val_boxes', 'box_images', 'val_images'):
        path = vars(args)[key]
        if path is not None and not path.exists():
            parser.error(f'--{key.replace("_", "-")}: {path} does not exist')
    return args


def boxed_names(option: str,
                file: Path,
                folder: Path,
                names: Tuple[str, ...],
                need_all: bool = False) -> List[str]:
    """The classes that a COCO JSON has boxes of.

    Args:
        option (str): What gave the file, for errors.
        file (Path): The JSON.
        folder (Path): Of its images.
        names (tuple[str]): The vocabulary.
        need_all (bool): Whether all images have to be there. In training,
            one that is not is replaced.

    Raises:
        ValueError: If it is no such JSON, has no box of the vocabulary, or
            its images are not in the folder.
    """
    try:
        content = json.loads(file.read_text(encoding='utf-8'))
        known = {c['id']: c['name'] for c in content['categories']}
        found = {known[a['category_id']] for a in content['annotations']}
        images = [image['file_name'] for image in content['images']]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f'{option}: expected COCO annotations (images, annotations, '
            f'categories), got {file} ({error!r})') from error
    boxed = [name for name in names if name in found]
    if not boxed:
        raise ValueError(
            f'{option}: expected boxes of some of {len(names)} classes of the '
            f'vocabulary, got boxes of {sorted(found)[:10]}')
    missing = [name for name in images if not (folder / name).is_file()]
    if len(missing) == len(images) or (need_all and missing):
        raise ValueError(
            f'{option}: expected images in {folder}, got {len(missing)} of '
            f'{len(images)} that are not there, such as {missing[0]}')
    return boxed


def check_words(args: argparse.Namespace) -> Tuple[Vocabulary, Sequence[str]]:
    """The vocabulary, and those of its classes that have boxes.

    Raises:
        SystemExit: With the error's message, if a file is wrong.
    """
    base_names: Sequence[str] = ()
    box_images = args.box_images or args.images
    try:
        vocabulary = build_vocabulary(args.vocabulary)
        if args.boxes:
            base_names = boxed_names('--boxes', args.boxes, box_images,
                                     vocabulary.names)
        if args.val_boxes:
            boxed_names(
                '--val-boxes',
                args.val_boxes,
                args.val_images or box_images,
                vocabulary.names,
                need_all=True)
    except ValueError as error:
        sys.exit(f'finetune: {error}')
    return vocabulary, base_names


def main(argv: Optional[List[str]] = None) -> None:
    """Prepare, train, evaluate, and leave a plain detector."""
    args = parse_args(argv)
    vocabulary, base_names = check_words(args)
    cfg = Config.fromfile(args.detector)
    captions = args.work_dir / 'captions.json'

    def prepare():
        return prepare_image_text(
            str(args.captions or args.images),
            captions,
            vocabulary=vocabulary,
            synonyms=args.synonyms and read_synonyms(args.synonyms),
            images=args.images if args.captions else None,
            workers=args.workers,
            overwrite=args.overwrite)

    print(report('finetune', prepare))
    data = OwnData(
        captions,
        args.images,
        vocabulary.names,
        args.boxes,
        args.val_boxes,
        args.box_images,
        args.val_images,
        base_names=base_names)
    train = finetune_config(cfg, args.checkpoint, data, args.iterations,
                            args.batch_size, args.lr)
    train.work_dir = str(args.work_dir)
    train.randomness = dict(seed=args.seed)
    train.dump(args.work_dir / 'finetune.py')
    prepare_cpu_processes(train)
    runner = Runner.from_cfg(train)
    # MMEngine would only warn, and train what was drawn at random.
    detector_weights(
        torch.load(args.checkpoint, map_location='cpu', weights_only=True),
        runner.model.detector)
    runner.train()
    last = Path((args.work_dir / 'last_checkpoint').read_text().strip())
    checkpoint = torch.load(last, map_location='cpu', weights_only=True)
    plain = plain_config(cfg, data)
    plain.custom_imports = dict(imports=['mmdet_clim'])
    plain.dump(args.work_dir / 'detector.py')
    save_atomically(
        dict(
            state_dict=strip_state_dict(checkpoint['state_dict']),
            meta=dict(
                cfg=plain.pretty_text,
                dataset_meta=dict(classes=vocabulary.names))),
        args.work_dir / 'detector.pth')
    print(f'{args.work_dir}/detector.py, {args.work_dir}/detector.pth')


if __name__ == '__main__':
    run_command(main)
