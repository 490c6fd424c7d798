# Licensed under the Apache License, Version 2.0.
r"""Convert a published checkpoint for a config of this package.

Supports checkpoints of Detic (of Detectron2 and of MMDetection), of CLIM on
it, of BARON, F-ViT and F-VLM, and of CLIPs refined by CLIM or CLIPSelf; the
family is recognised by the names of the weights. Weights that are unknown,
missing or of another shape are listed, and nothing is written.

    python tools/checkpoints/convert_published.py clim.pth ours.pth \
        --config configs/detic/ov_coco/detic_r50-caffe-c4_90k_ov-coco_base.py
"""
from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import (
    Parser,
    add_cfg_options,
    add_json,
    print_result,
)

# What takes seconds to import waits until the command line is read.
if TYPE_CHECKING:
    from mmengine.config import Config

    from mmdet_clim.engine.published_checkpoints import Conversion


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'input', type=Path, metavar='IN', help='.pth, or .pkl of Detectron2')
    parser.add_argument(
        'output', type=Path, metavar='OUT', help='.pth to write')
    parser.add_argument(
        '--config',
        required=True,
        help='config of the detector, wrapped or not; for a CLIP, one that '
        'uses it')
    parser.add_argument(
        '--class-vectors',
        type=Path,
        metavar='FILE.npz',
        help='also write the class embeddings in IN, with their names, for '
        'PrecomputedTextEncoder')
    parser.add_argument(
        '--allow-missing',
        action='append',
        default=[],
        metavar='PATTERN',
        help='weights of the detector that IN may lack, such as '
        '"*.logit_bias"; they are left out of OUT')
    parser.add_argument(
        '--ignore',
        action='append',
        default=[],
        metavar='PATTERN',
        help='weights in IN to leave out')
    add_cfg_options(parser)
    add_json(parser)
    args = parser.parse_args(argv)
    if args.class_vectors and args.class_vectors.suffix != '.npz':
        parser.error(
            f'--class-vectors: expected a .npz, got {args.class_vectors}')
    return args


def main(argv: list[str] | None = None) -> None:
    """Convert one checkpoint."""
    args = parse_args(argv)
    from mmdet_clim.engine.checkpoints import save_atomically
    from mmdet_clim.engine.config_checks import read_config
    from mmdet_clim.engine.published_checkpoints import (
        clip_of_config,
        convert_clip,
        read_weights,
        recognise,
    )
    from mmdet.utils import register_all_modules  # isort: skip
    weights = read_weights(args.input)
    family = recognise(list(weights))
    print(f'{args.input}: {len(weights)} weights of {family.name} '
          f'({family.title})')
    cfg = read_config(args.config, args.cfg_options)
    # mmdet names the parts of its heads without a scope.
    register_all_modules()
    if family.rules is None:
        if args.class_vectors:
            raise ValueError(f'--class-vectors: {args.input} is a CLIP, which '
                             'has none')
        name = clip_of_config(cfg.model)
        done = convert_clip(weights, name, args.allow_missing, args.ignore)
        save_atomically(dict(state_dict=done.state_dict), args.output)
        report(args, done)
        print(f'use it as pretrained={str(args.output)!r} of model={name!r}')
    else:
        done = convert_detector(args, cfg, weights)
    print_summary(args, done, family.name)


def convert_detector(args: argparse.Namespace, cfg: Config,
                     weights: dict) -> Conversion:
    """Convert the checkpoint of a detector, and its class vectors."""
    from mmdet_clim.engine.checkpoints import save_atomically
    from mmdet_clim.engine.published_checkpoints import (
        build_without_clip,
        class_agreement,
        convert_state_dict,
        find_class_vectors,
        names_of_rows,
        objective_parts,
        write_class_vectors,
    )
    from mmdet_clim.models.detectors.clim_detector import DETECTOR_PREFIX
    detector_cfg = cfg.model.get('detector', cfg.model)
    model = build_without_clip(detector_cfg)
    done = convert_state_dict(weights, model, objective_parts(cfg.model),
                              args.allow_missing, args.ignore)
    heads = model.roi_head.bbox_head
    first = heads[0] if hasattr(heads, '__len__') else heads
    vectors = find_class_vectors(weights)
    rows = None
    if vectors is not None:
        rows = names_of_rows(len(vectors.vectors), first.vocabulary.names)
    if args.class_vectors:
        if rows is None:
            got = 'none' if vectors is None else \
                f'{len(vectors.vectors)} rows of {vectors.source}'
            raise ValueError(
                f'--class-vectors: {args.input}: expected embeddings of the '
                f"{len(first.vocabulary)} classes of the config or of COCO's "
                f'80, got {got}')
        write_class_vectors(vectors, rows, done.family.prompts,
                            args.class_vectors)
    state_dict = done.state_dict
    if done.objectives:
        state_dict = {
            **{
                DETECTOR_PREFIX + k: v
                for k, v in state_dict.items()
            },
            **done.objectives
        }
    save_atomically(
        dict(
            state_dict=state_dict,
            meta=dict(
                cfg=cfg.pretty_text,
                dataset_meta=dict(classes=tuple(first.vocabulary.names)),
                left_out=list(done.missing),
                converted_from=dict(
                    file=args.input.name, source=done.family.name))),
        args.output)
    report(args, done)
    if vectors is None:
        return done
    print(f'class vectors: {vectors.source} '
          f'{tuple(vectors.vectors.shape)}; prompts: {done.family.prompts}')
    if args.class_vectors:
        print(f'{args.class_vectors}: embeddings of {len(rows)} classes, from '
              f'{rows[0]!r} to {rows[-1]!r}')
    head_cfg = detector_cfg.roi_head.bbox_head
    head_cfg = head_cfg[0] if isinstance(head_cfg, list) else head_cfg
    try:
        cosine = class_agreement(vectors, first.fc_cls, head_cfg.classifier)
        print('class embeddings of the file and of the config: mean cosine '
              f'{cosine:.3f}')
    except ValueError as error:
        print('class embeddings of the file and of the config are not '
              f'compared: {error}')
    return done


def report(args: argparse.Namespace, done: Conversion) -> None:
    """Print what became of every entry of the file and of the model."""
    print(f'{args.output}: {len(done.converted)} weights')
    for title, names in (('weights of objectives', done.objectives), (
            'batch norms folded into the convolutions before them',
            done.folded), ('kept as built', done.kept),
                         *((f'not used: {reason}', names)
                           for reason, names in done.unused.items()),
                         ('constants, as in the config', done.checked),
                         ('ignored', done.ignored), ('missing', done.missing)):
        if names:
            print(f'{title}: {len(names)}\n  ' + '\n  '.join(names))


def print_summary(args: argparse.Namespace, done: Conversion,
                  family: str) -> None:
    """Print the same for other programs."""
    print_result(
        args,
        dict(
            output=args.output,
            family=family,
            converted=len(done.converted),
            unused={
                str(reason): list(names)
                for reason, names in done.unused.items()
            },
            ignored=list(done.ignored),
            missing=list(done.missing)))


if __name__ == '__main__':
    run_command(main)
