# Licensed under the Apache License, Version 2.0.
"""Convert Detic's published weights for a config of this package.

Takes checkpoints of Detic itself (Detectron2: ResNet-50 or Swin-B with
CenterNet2, and the R50-C4 of OV-COCO) and of MMDetection's Detic. Names that
are unknown, missing or of another shape are listed, and nothing is written.

    python tools/checkpoints/convert_detic.py detic.pth ours.pth \
        --config configs/detic/ov_lvis/detic_r50-centernet2_90k_ov-lvis_base.py
"""
import argparse
from pathlib import Path
from typing import List, Optional

# First: it checks the stack that all the others need.
import mmdet_clim  # noqa: F401  isort: skip
from mmdet.utils import register_all_modules
from mmengine.config import DictAction
from mmengine.registry import MODELS

from mmdet_clim.command import key_value, run_command
from mmdet_clim.engine.checkpoints import save_atomically
from mmdet_clim.engine.config_checks import read_config
from mmdet_clim.engine.detic_checkpoints import (
    convert_state_dict,
    guess_source,
    read_weights,
)


def parse_args(argv: Optional[List[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'input', type=Path, metavar='IN', help='.pth, or .pkl of Detectron2')
    parser.add_argument('output', type=Path, metavar='OUT', help='.pth')
    parser.add_argument(
        '--config', required=True, help='of the detector, wrapped or not')
    parser.add_argument(
        '--source',
        choices=['detectron2', 'mmdet'],
        help='whose checkpoint it is (default: told by its names)')
    parser.add_argument(
        '--allow-missing',
        action='append',
        default=[],
        metavar='PATTERN',
        help='our names that IN may lack, such as "*.logit_bias"; they are '
        'left out of OUT')
    parser.add_argument(
        '--ignore',
        action='append',
        default=[],
        metavar='PATTERN',
        help='names in IN to leave out')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        type=key_value,
        help='settings that override the config, as key=value')
    return parser.parse_args(argv)


def main(argv: Optional[List[str]] = None) -> None:
    """Convert one checkpoint."""
    args = parse_args(argv)
    weights = read_weights(args.input)
    source = args.source or guess_source(list(weights))
    cfg = read_config(args.config, args.cfg_options)
    # mmdet names the parts of its heads without a scope.
    register_all_modules()
    model = MODELS.build(cfg.model.get('detector', cfg.model))
    done = convert_state_dict(weights, model, source, args.allow_missing,
                              args.ignore)
    heads = model.roi_head.bbox_head
    vocabulary = (heads[0] if hasattr(heads, '__len__') else heads).vocabulary
    save_atomically(
        dict(
            state_dict=done.state_dict,
            meta=dict(
                cfg=cfg.pretty_text,
                dataset_meta=dict(classes=tuple(vocabulary.names)),
                left_out=list(done.missing),
                converted_from=dict(file=args.input.name, source=source))),
        args.output)
    print(f'{args.output}: {len(done.converted)} weights of {source}')
    for title, names in (('kept as built', done.kept),
                         ('follow from the config', done.from_config),
                         ('constants, as in the config', done.checked),
                         ('ignored', done.ignored), ('missing', done.missing)):
        if names:
            print(f'{title}: {len(names)}\n  ' + '\n  '.join(names))
    if done.class_agreement is not None:
        print('class embeddings of the file and of the config: mean cosine '
              f'{done.class_agreement:.3f}')


if __name__ == '__main__':
    run_command(main)
