# Licensed under the Apache License, Version 2.0.
r"""Detect your own classes in images or videos.

Draws the boxes, and writes them as JSON.

    python tools/infer.py street.jpg photos/ --checkpoint iter_600.pth \
        --vocabulary cat "fire truck" --out-dir found
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_json, device_name, print_result

# What takes seconds to import waits until the command line is read.
if TYPE_CHECKING:
    from mmdet_clim.apis import CLIMInferencer


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'inputs', nargs='+', help='images, folders of images, or videos')
    parser.add_argument(
        '--config',
        help='config of the detector (default: the one in CHECKPOINT)')
    parser.add_argument(
        '--checkpoint',
        required=True,
        help='file, folder of `clim share`, or hf://USER/NAME, which is '
        'downloaded')
    parser.add_argument(
        '--vocabulary',
        nargs='+',
        metavar='NAME',
        help='class names, or one file of them (.txt, .json, .yaml, .csv) '
        '(default: the classes of the config)')
    parser.add_argument(
        '--texts',
        help="for grounding detectors instead of a vocabulary: a sentence, or "
        "names separated by ' . ' with --custom-entities")
    parser.add_argument(
        '--custom-entities',
        action='store_true',
        help='take --texts as names instead of a sentence')
    parser.add_argument(
        '--out-dir',
        type=Path,
        default=Path('outputs'),
        help='folder for vis/ with drawn boxes and preds/ with JSON '
        '(%(default)s)')
    parser.add_argument(
        '--score-thr',
        type=float,
        help='minimum score of the boxes that are drawn, for all classes; the '
        'JSON has all boxes (default: the thresholds in thresholds.json '
        'beside CHECKPOINT, written by `finetune`; otherwise 0.3)')
    parser.add_argument(
        '--no-save-vis', action='store_true', help='do not write pictures')
    parser.add_argument(
        '--no-save-pred', action='store_true', help='do not write JSON')
    parser.add_argument('--batch-size', type=int, default=1)
    parser.add_argument(
        '--device',
        type=device_name,
        help='such as cuda:0 or cpu (default: an accelerator if there is one)')
    add_json(parser)
    args = parser.parse_args(argv)
    from mmdet_clim.apis.inferencer import check_file_names
    from mmdet_clim.datasets.vocabulary import vocabulary_of_words
    try:
        check_file_names(_files(args.inputs))
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    names = args.vocabulary
    if names and args.texts is not None:
        parser.error('--texts: not accepted with --vocabulary')
    if args.custom_entities and args.texts is None:
        parser.error('--custom-entities: requires --texts')
    if args.batch_size < 1:
        parser.error('--batch-size: expected at least 1, got '
                     f'{args.batch_size}')
    if args.score_thr is not None and not 0 <= args.score_thr <= 1:
        parser.error(f'--score-thr: expected 0 to 1, got {args.score_thr}')
    if names:
        try:
            args.vocabulary = vocabulary_of_words(names)
        except (ValueError, FileNotFoundError) as error:
            parser.error(f'--{error}')
    return args


def _files(inputs: list[str]) -> list[str]:
    """The images and videos that are asked for."""
    from mmdet_clim.apis.inferencer import folder_images
    files = []
    for path in inputs:
        if not Path(path).exists():
            raise FileNotFoundError(f'inputs: {path} does not exist')
        files += folder_images(path) if Path(path).is_dir() else [path]
    return files


def main(argv: list[str] | None = None) -> None:
    """Find, draw and write."""
    args = parse_args(argv)
    from mmdet_clim.apis.inferencer import VIDEO_SUFFIXES
    from mmdet_clim.apis.sharing import load_detector
    find = load_detector(
        args.config,
        args.checkpoint,
        vocabulary=args.vocabulary,
        thresholds=args.score_thr,
        device=args.device)
    options = dict(texts=args.texts, custom_entities=args.custom_entities)
    images: dict[str, list] = {}
    videos: dict[str, list] = {}
    for path in args.inputs:
        if path.lower().endswith(VIDEO_SUFFIXES):
            frames = _video(find, Path(path), args, options)
            videos[path] = [_best(find, of) for of in frames]
        else:
            found = find(
                path,
                batch_size=args.batch_size,
                out_dir=str(args.out_dir),
                no_save_vis=args.no_save_vis,
                no_save_pred=args.no_save_pred,
                **options)['predictions']
            images.update((of['img_path'], _best(find, of)) for of in found)
    print_result(args,
                 dict(out_dir=args.out_dir, images=images,
                      videos=videos), args.out_dir)


def _best(find: CLIMInferencer, found: dict) -> list[dict]:
    """The boxes that are drawn."""
    return [
        dict(name=name, score=score, bbox=box) for name, score, box in zip(
            found['names'], found['scores'], found['bboxes'])
        if score >= find.least_score(name)
    ]


def _video(find: CLIMInferencer, path: Path, args: argparse.Namespace,
           options: dict) -> list[dict]:
    """The predictions of each frame, which are written if they are to be."""
    found = find.video(
        path, None if args.no_save_vis else args.out_dir / 'vis' /
        f'{path.stem}.mp4', **options)
    if args.no_save_pred:
        return found
    from mmdet_clim.datasets.preparation.files import write_json
    file = args.out_dir / 'preds' / f'{path.stem}.json'
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, found)
    return found


if __name__ == '__main__':
    run_command(main)
