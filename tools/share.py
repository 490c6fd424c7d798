# Licensed under the Apache License, Version 2.0.
r"""Save a detector as a folder of data, and push it to the Hugging Face Hub.

The folder has config, weights (safetensors), vocabulary and a model card.
`clim infer --checkpoint FOLDER` and `from_pretrained` load it without running
code in it. With --push it is uploaded too, privately unless --public.

    python tools/share.py --checkpoint iter_600.pth --out-dir street_detector
    python tools/share.py --out-dir street_detector --push USER/NAME
"""
import argparse
from pathlib import Path
from typing import Any

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_json, print_result


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--checkpoint',
        help='checkpoint of a training; without it, an existing --out-dir is '
        'pushed')
    parser.add_argument(
        '--config',
        help='config of the detector (default: the one in CHECKPOINT)')
    parser.add_argument(
        '--vocabulary',
        nargs='+',
        metavar='NAME',
        help='class names, or one file of them (default: the classes of the '
        'detector)')
    parser.add_argument(
        '--licence',
        help='licence of the weights for the model card, an identifier such '
        'as apache-2.0')
    parser.add_argument(
        '--out-dir', type=Path, required=True, help='folder to write')
    parser.add_argument(
        '--push',
        metavar='USER/NAME',
        help='repository to upload the folder to')
    parser.add_argument(
        '--public', action='store_true', help='make a new repository public')
    add_json(parser)
    args = parser.parse_args(argv)
    if args.checkpoint is None and args.push is None:
        parser.error('give --checkpoint, --push or both')
    if args.checkpoint is None:
        for name in ('config', 'vocabulary', 'licence'):
            if vars(args)[name] is not None:
                parser.error(f'--{name}: requires --checkpoint')
    if args.public and args.push is None:
        parser.error('--public: requires --push')
    return args


def main(argv: list[str] | None = None) -> None:
    """Save, and push."""
    args = parse_args(argv)
    # They take seconds to import.
    from mmdet_clim.apis import push_to_hub, save_pretrained
    from mmdet_clim.datasets.vocabulary import vocabulary_of_words
    made: dict[str, Any] = {}
    if args.checkpoint is not None:
        save_pretrained(
            args.out_dir,
            args.checkpoint,
            args.config,
            vocabulary=args.vocabulary
            and vocabulary_of_words(args.vocabulary),
            name=args.push and args.push.rpartition('/')[2],
            licence=args.licence)
        made['folder'] = args.out_dir
    if args.push is not None:
        made['address'] = push_to_hub(
            args.out_dir, args.push, private=not args.public)
    print_result(args, made, '\n'.join(map(str, made.values())))


if __name__ == '__main__':
    run_command(main)
