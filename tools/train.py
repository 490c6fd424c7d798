# Licensed under the Apache License, Version 2.0.
"""Train a detector that a config describes."""
from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_cfg_options, add_launcher

# What takes seconds to import waits until the command line is read.
if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description='Train a detector')
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--clim',
        metavar='FRAGMENT',
        help='apply CLIM to the config: a file that defines clim_* names, '
        'such as configs/_base_/clim/*.py, or package::path')
    parser.add_argument(
        '--work-dir',
        help='folder for logs and checkpoints (default: '
        'work_dirs/CONFIG_NAME, or with --clim '
        'work_dirs/CONFIG_NAME_FRAGMENT_NAME)')
    parser.add_argument(
        '--amp',
        action='store_true',
        help='train in float16; with --cfg-options '
        'optim_wrapper.dtype=bfloat16, in that')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate with the total batch size')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        help='resume from this checkpoint, or from the latest one of the work '
        'dir if no path is given')
    add_cfg_options(
        parser, 'settings that override the config, with --clim the wrapped '
        'one (model.detector.*) and the fragment (clim_*)')
    add_launcher(parser)
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and merge the command line into it."""
    from mmdet_clim.engine.config_checks import absolute_load_from, read_config
    options = args.cfg_options
    if args.amp:
        # As one of them, so that others can be of its type, such as dtype.
        options = {
            'optim_wrapper.type': 'AmpOptimWrapper',
            'optim_wrapper.loss_scale': 'dynamic',
            **(options or {})
        }
    cfg = read_config(args.config, options, args.clim)
    cfg.launcher = args.launcher

    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        name = Path(args.config).stem
        if args.clim is not None:
            # Not beside the checkpoints of the plain detector, from which
            # --resume would go on.
            name += f'_{Path(args.clim.rpartition("::")[2]).stem}'
        cfg.work_dir = str(Path('work_dirs', name))

    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise KeyError(
                f'--auto-scale-lr: expected auto_scale_lr.base_batch_size in '
                f'{args.config}, got {cfg.get("auto_scale_lr")}')
        cfg.auto_scale_lr.enable = True

    absolute_load_from(cfg)
    return cfg


def check_resume(file: str) -> None:
    """See that a training can go on from a file.

    Raises:
        ValueError: If it holds weights alone.
    """
    from mmdet_clim.engine.runner import can_resume
    if not can_resume(file):
        raise ValueError(
            f'--resume {file}: expected a checkpoint of a training, with its '
            'iteration and optimizer, got weights alone; --cfg-options '
            f'load_from={file} begins with them')


def main(argv: list[str] | None = None) -> None:
    """Build the runner and train."""
    args = parse_args(argv)
    from mmdet_clim.engine import prepare_cpu_processes
    from mmdet_clim.engine.config_checks import (
        check_files,
        check_parts,
        named_in_config,
    )
    from mmdet_clim.engine.runner import begin_with, build_runner
    cfg = load_config(args)
    check_parts(cfg, args.config,
                ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper'))
    auto = args.resume == 'auto'
    if args.resume is not None and not auto:
        check_resume(args.resume)
    # Of a run that goes on, the weights that it began with may be gone.
    goes_on = args.resume is not None and (not auto or Path(
        cfg.work_dir, 'last_checkpoint').exists())
    check_files(cfg, ['train'] + ['val'] * (cfg.get('val_cfg') is not None),
                None if goes_on else cfg.get('load_from'))
    prepare_cpu_processes(cfg)
    with named_in_config(cfg):
        runner = build_runner(cfg)
        if args.resume is not None:
            begin_with(runner, None if auto else args.resume, resume=True)
        runner.train()


if __name__ == '__main__':
    run_command(main)
