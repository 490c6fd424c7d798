# Licensed under the Apache License, Version 2.0.
r"""Export a detector to ONNX, with its classes as an input.

Writes OUT.onnx, and OUT.npz with the embeddings of the config's classes;
tools/embeddings/embed_classes.py makes such files for other vocabularies, and
tools/run_onnx.py needs only these two. With --check, the graph is compared
with PyTorch on the given images; the exit status is 1 if boxes differ by more
than a pixel or scores by more than a thousandth.

    python tools/export_onnx.py CONFIG CHECKPOINT --out model.onnx \
        --check street.jpg
"""
from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_json, print_result

# What takes seconds to import waits until the command line is read.
if TYPE_CHECKING:
    from mmdet_clim.apis import CLIMInferencer

from run_onnx import OnnxRunner, read_embeddings, read_image  # isort: skip

#: How far apart the detections of both may be, in pixels and of a score.
MOST_APART = (1.0, 1e-3)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument(
        '--out', type=Path, required=True, help='.onnx file to write')
    parser.add_argument(
        '--vocabulary',
        nargs='+',
        metavar='NAME',
        help='class names, or one file of them (default: those of the config '
        'or checkpoint); they are part of the graph of a Grounding DINO')
    parser.add_argument(
        '--scale',
        type=int,
        nargs=2,
        help='size in pixels that images are resized to (default: that of the '
        "config's test pipeline)")
    parser.add_argument(
        '--check',
        nargs='+',
        default=[],
        metavar='IMAGE',
        help='compare PyTorch and onnxruntime on these images')
    add_json(parser)
    args = parser.parse_args(argv)
    if args.out.suffix != '.onnx':
        parser.error(f'--out: expected a name in .onnx, got {args.out}')
    if args.scale and min(args.scale) < 1:
        parser.error(f'--scale: expected at least 1, got {args.scale}')
    for path in args.check:
        if not Path(path).is_file():
            parser.error(f'--check: {path} does not exist')
    return args


def apart(expected: dict, found: dict) -> tuple[float, float]:
    """How far two lists of detections are from each other.

    Detections of equal scores may change places, and the last ones fall out:
    each of one list that scores a thousandth more than the other's last is
    compared with the nearest of its class there.

    Args:
        expected (dict): ``names``, ``boxes`` (n, 4), ``scores`` (n,).
        found (dict): The same.

    Returns:
        tuple[float, float]: The largest difference in pixels and of a score;
        infinite where a detection has no counterpart.
    """
    one, other = _farthest(expected, found), _farthest(found, expected)
    return max(one[0], other[0]), max(one[1], other[1])


def _farthest(these: dict, those: dict) -> tuple[float, float]:
    """Of the detections in ``these`` from those of their class."""
    names = np.array(those['names'])
    last = min(those['scores'], default=0)
    pixels = scores = 0.
    for name, box, score in zip(these['names'], these['boxes'],
                                these['scores']):
        if score <= last + 1e-3:
            continue
        of_class = np.flatnonzero(names == name)
        if not len(of_class):
            return float('inf'), float('inf')
        distances = np.abs(np.array(those['boxes'])[of_class] - box).max(1)
        nearest = of_class[distances.argmin()]
        pixels = max(pixels, float(distances.min()))
        scores = max(scores, float(abs(those['scores'][nearest] - score)))
    return pixels, scores


def compare(find: CLIMInferencer, file: Path, embeddings: Path,
            images: list[str]) -> list[dict]:
    """How far apart the detections of both are.

    Returns:
        list[dict]: Of each image its file (``image``), how many
        ``detections`` there are, and by how many ``pixels`` and how much
        ``score`` they differ at most.
    """
    run = OnnxRunner(file)
    names, vectors = read_embeddings(embeddings)
    found_apart = []
    for path in images:
        # Each side reads the file by itself.
        expected = find(path)['predictions'][0]
        expected['boxes'] = expected['bboxes']
        found = run(read_image(Path(path)), names, vectors)
        pixels, scores = apart(expected, found)
        found_apart.append(
            dict(
                image=path,
                detections=len(expected['names']),
                pixels=pixels,
                score=scores))
    return found_apart


def main(argv: list[str] | None = None) -> None:
    """Export, and compare."""
    args = parse_args(argv)
    from mmdet_clim.apis import CLIMInferencer, write_onnx
    from mmdet_clim.datasets.vocabulary import vocabulary_of_words
    find = CLIMInferencer(
        args.config,
        args.checkpoint,
        vocabulary=args.vocabulary and vocabulary_of_words(args.vocabulary),
        device='cpu',
        show_progress=False)
    embeddings = write_onnx(find.model, find.cfg, args.out, args.scale)
    names, _ = read_embeddings(embeddings)
    compared = compare(find, args.out, embeddings, args.check)
    lines = [f'{args.out}, {embeddings}: {len(names)} classes']
    lines += [
        f'{of["image"]}: {of["detections"]} detections, difference at '
        f'most {of["pixels"]:.4f} pixels and {of["score"]:.6f} in score'
        for of in compared
    ]
    print_result(
        args,
        dict(
            model=args.out,
            embeddings=embeddings,
            classes=len(names),
            compared=compared), '\n'.join(lines))
    if any(of['pixels'] > MOST_APART[0] or of['score'] > MOST_APART[1]
           for of in compared):
        sys.exit('error: expected differences of at most '
                 f'{MOST_APART[0]:g} pixel and {MOST_APART[1]:g} in score')


if __name__ == '__main__':
    run_command(main)
