# Licensed under the Apache License, Version 2.0.
r"""Train a detector for your classes from captioned images.

Checks the data, writes the resolved config, trains with CLIM, writes
WORK_DIR/detector.py and detector.pth, which plain mmdet can load (with
`custom_imports` of mmdet_clim), and evaluates them if there are boxes for
evaluation. The same command resumes an interrupted run.

    python tools/finetune.py --config CONFIG --checkpoint F \
        --images photos --captions captions.csv --vocabulary names.txt
"""
import argparse
import math
import os
import re
from pathlib import Path

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import (
    KeyValues,
    Parser,
    add_json,
    key_value,
    print_result,
    whole,
)

# Of mmdet_clim.engine.finetune_leaves, which takes seconds to import.
LEAVES = ('safetensors', 'labels', 'onnx', 'report')

# Options that say more of others, and these.
_NEEDED = dict(
    box_images=('boxes', 'val_boxes', 'examples'),
    val_images=('val_boxes', ),
    example_images=('examples', ),
    example_weight=('examples', ))


def _flag(key: str) -> str:
    return f'--{key.replace("_", "-")}'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        renamed={'--detector': '--config'},
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--config', type=Path, required=True, help='config of the detector')
    parser.add_argument('--checkpoint', type=Path, required=True)
    parser.add_argument(
        '--images', type=Path, required=True, help='folder of the images')
    parser.add_argument(
        '--captions',
        type=Path,
        help='.json (COCO captions, or a list of objects with file_name and '
        'caption), .jsonl, .csv or .tsv with file names relative to '
        '--images (default: a .txt beside each image)')
    parser.add_argument(
        '--tags',
        type=Path,
        help='class names instead of captions: .csv or .tsv with a column of '
        'images and one of tags (or a column of 0 and 1 for each class), '
        "'folders' if the images are in folders named by class, or "
        "'boxes' for the classes of --boxes")
    parser.add_argument(
        '--vocabulary',
        type=Path,
        required=True,
        help='file of class names: .txt with one name per line, .json, .yaml, '
        '.csv')
    parser.add_argument(
        '--synonyms',
        type=Path,
        help='JSON file of synonyms: {"couch": ["sofa"]}')
    parser.add_argument(
        '--boxes',
        type=Path,
        help='boxes of some of the classes: COCO JSON, YOLO data.yaml, a '
        'folder of Pascal VOC, CVAT for images, or Label Studio JSON')
    parser.add_argument(
        '--val-boxes',
        type=Path,
        help='boxes for evaluation, in the same formats')
    parser.add_argument(
        '--box-images',
        type=Path,
        help='folder of the images of --boxes (default: that of YOLO and '
        'Pascal VOC; for a single file, --images)')
    parser.add_argument(
        '--val-images',
        type=Path,
        help='folder of the images of --val-boxes (default: --box-images)')
    parser.add_argument(
        '--examples',
        type=Path,
        help='example boxes of some of the classes, in the same formats: '
        'their mean embedding is mixed with that of the name')
    parser.add_argument(
        '--example-images',
        type=Path,
        help='folder of the images of --examples (default: --box-images)')
    parser.add_argument(
        '--example-weight',
        type=float,
        default=0.5,
        help='weight of the example boxes relative to the name, 0 to 1 '
        '(%(default)s)')
    parser.add_argument(
        '--work-dir', type=Path, default=Path('work_dirs/finetune'))
    parser.add_argument(
        '--iterations',
        type=int,
        help='length of the training (default: each captioned image is seen '
        'five times, in 200 to 20000 iterations)')
    parser.add_argument(
        '--batch-size',
        type=int,
        default=8,
        help='samples per step and process (%(default)s)')
    parser.add_argument('--lr', type=float, default=1e-4)
    parser.add_argument(
        '--lr-mult',
        nargs='+',
        action=KeyValues,
        type=key_value,
        default={},
        metavar='PART=FACTOR',
        help="learning rate factors, by a part of the weights' names, such as "
        'neck=0.5 (in addition to backbone=0.1, rpn_head=0.1 and '
        'language_model=0)')
    parser.add_argument(
        '--freeze',
        nargs='+',
        default=(),
        metavar='PART',
        help='parts that are not trained, such as backbone')
    parser.add_argument('--seed', type=whole(0, 2**32 - 1), default=0)
    parser.add_argument(
        '--workers',
        type=int,
        default=2,
        help='number of processes that prepare captions, and that load data '
        'for each training process (%(default)s)')
    parser.add_argument(
        '--device',
        type=_device,
        help='cpu, cuda, cuda:1, ... (default: an accelerator if there is one)'
    )
    parser.add_argument(
        '--ema',
        action='store_true',
        help='keep the exponential moving average of the weights, over about '
        'the last tenth of the training')
    _add_keeping(parser)
    parser.add_argument(
        '--amp', action='store_true', help='train with mixed precision')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        type=key_value,
        help='settings that override the config of the training (finetune.py '
        'in the work dir), as key=value; lists as key="[a,b]" or key=a,b, '
        'nested ones as key="[(a,b),(c,d)]", without white space')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='launcher of the processes of a distributed run')
    # torch.distributed.launch passes it; MMEngine reads the environment.
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='(launcher)')
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='start from scratch, whatever the work dir contains')
    parser.add_argument(
        '--leave',
        nargs='*',
        choices=LEAVES,
        default=LEAVES,
        help='what to write in addition to the detector: its weights as '
        'safetensors, pseudo-labels of your images, an ONNX graph, a '
        'report (default: all)')
    add_json(parser)
    args = parser.parse_args(argv)
    for key in ('config', 'checkpoint', 'images', 'captions', 'vocabulary',
                'synonyms', 'boxes', 'val_boxes', 'box_images', 'val_images',
                'examples', 'example_images'):
        path = vars(args)[key]
        if path is not None and not path.exists():
            parser.error(f'{_flag(key)}: {path} does not exist')
    for part, factor in args.lr_mult.items():
        if not isinstance(factor, (int, float)) or not 0 <= factor <= 1e3:
            parser.error(
                f'--lr-mult: {part}: expected a factor of at least 0, '
                f'got {factor!r}')
    if args.tags is not None:
        if args.captions is not None:
            parser.error('--tags: not accepted with --captions')
        if str(args.tags) not in ('folders',
                                  'boxes') and not args.tags.exists():
            parser.error(f'--tags: {args.tags} does not exist')
    for key, least in (('iterations', 1), ('workers', 0), ('seed', 0)):
        if vars(args)[key] is not None and vars(args)[key] < least:
            parser.error(f'--{key}: expected at least {least}, got '
                         f'{vars(args)[key]}')
    for key, most in (('distil', math.inf), ('replay', 1), ('most_lost', 100),
                      ('alike', 1), ('example_weight', 1)):
        value = vars(args)[key]
        if value is not None and not (0 <= value <= most and value < math.inf):
            parser.error(f'{_flag(key)}: expected a number from 0 to '
                         f'{most:g}, got {value}')
    if args.best and args.val_boxes is None:
        parser.error('--best: expected --val-boxes to evaluate on')
    if not args.images.is_dir():
        parser.error(f'--images: expected a folder, got {args.images}')
    if args.work_dir.exists() and not args.work_dir.is_dir():
        parser.error(f'--work-dir: expected a folder, got {args.work_dir}')
    for option, others in _NEEDED.items():
        value = vars(args)[option]
        if value != parser.get_default(option) and not any(
                vars(args)[other] is not None for other in others):
            parser.error(f'{_flag(option)}: has no effect without '
                         f'{" or ".join(map(_flag, others))}')
    if args.most_lost != parser.get_default('most_lost') and \
            args.blend != 'auto':
        parser.error('--most-lost: has no effect without --blend auto')
    if not 0 < args.lr < math.inf:
        parser.error(f'--lr: expected a positive number, got {args.lr}')
    return args


def _add_keeping(parser: argparse.ArgumentParser) -> None:
    """Options of what the detector is to know as before."""
    parser.add_argument(
        '--keep',
        nargs='+',
        metavar='NAME',
        help='classes that the detector should not forget, which are compared '
        'with the original detector: names or a file of them, coco, lvis, '
        'all (of its vocabulary) or none (default: those that it was '
        'trained on with boxes)')
    parser.add_argument(
        '--distil',
        type=float,
        default=0.0,
        metavar='WEIGHT',
        help="weight of the distillation loss: the original's scores of the "
        'classes to keep are targets, on the same mosaics (%(default)s)')
    parser.add_argument(
        '--replay',
        type=float,
        nargs='?',
        const=0.5,
        metavar='SCORE',
        help="also train on the original's detections of the classes to keep "
        'in your images with at least this score (without a number: '
        '%(const)s)')
    parser.add_argument(
        '--blend',
        type=_blend,
        default=1.0,
        metavar='ALPHA',
        help='use ALPHA of the trained weights and 1 - ALPHA of the original '
        'ones; auto: the ALPHA that is best for your classes and loses '
        'little on those to keep, on --val-boxes (%(default)s)')
    parser.add_argument(
        '--most-lost',
        type=float,
        default=1.0,
        metavar='POINTS',
        help='points of AP50 that the classes to keep may lose with --blend '
        'auto (%(default)s)')
    parser.add_argument(
        '--best',
        action='store_true',
        help='evaluate after every tenth of the training, and keep the best '
        'detector')
    parser.add_argument(
        '--alike',
        type=float,
        default=0.9,
        metavar='COSINE',
        help='cosine of two names from which on a warning is given before '
        'training (%(default)s)')


def _blend(text: str):
    try:
        value = text if text == 'auto' else float(text)
        if value == 'auto' or 0 <= value <= 1:
            return value
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f'expected a number from 0 to 1 or auto, got {text!r}')


def _device(name: str) -> str:
    if not re.fullmatch(r'cpu|cuda(:\d+)?', name):
        raise argparse.ArgumentTypeError(
            f'expected cpu, cuda or such as cuda:1, got {name!r}')
    return name


def choose_device(name: str | None) -> None:
    """Leave the process one device, before torch looks for them.

    Args:
        name (str, optional): ``cpu``, ``cuda`` or ``cuda:N``.
    """
    if name == 'cpu':
        os.environ['CUDA_VISIBLE_DEVICES'] = ''
    elif name is not None and ':' in name:
        number = name.partition(':')[2]
        visible = os.environ.get('CUDA_VISIBLE_DEVICES')
        names = visible.split(',') if visible else []
        os.environ['CUDA_VISIBLE_DEVICES'] = (
            names[int(number)] if int(number) < len(names) else number)


def check_device(name: str | None) -> None:
    """See that MMEngine takes the device that was chosen.

    Raises:
        ValueError: If it does not.
    """
    from mmengine.device import get_device
    if name is not None and name.partition(':')[0] != get_device():
        raise ValueError('--device: expected one of this machine, such as '
                         f'{get_device()}, got {name}')


def main(args: argparse.Namespace) -> None:
    """Prepare, train, leave a plain detector, and evaluate it."""
    options = dict(vars(args))
    del options['json']
    os.environ.setdefault('LOCAL_RANK', str(options.pop('local_rank')))
    check_device(options.pop('device'))
    from mmengine.dist import is_main_process

    from mmdet_clim.engine.finetune_run import Finetuning
    run = Finetuning(**options)
    run.run()
    if is_main_process():
        # The log has it for people.
        print_result(args, run.result())


if __name__ == '__main__':
    given = parse_args()
    choose_device(given.device)
    run_command(lambda: main(given))
