# Licensed under the Apache License, Version 2.0.
"""Test a detector that a config and a checkpoint describe."""
from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import (
    Parser,
    add_cfg_options,
    add_json,
    add_launcher,
    print_result,
)

# What takes seconds to import waits until the command line is read.
if TYPE_CHECKING:
    from mmengine.config import Config


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(description='Test a detector')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', nargs='?', help='path of the checkpoint')
    parser.add_argument(
        '--checkpoint',
        dest='checkpoint_option',
        metavar='CHECKPOINT',
        help='the same as an option')
    parser.add_argument(
        '--work-dir',
        help='folder for the metrics (default: work_dirs/CONFIG_NAME)')
    parser.add_argument(
        '--out', help='also write the predictions to this .pkl file')
    parser.add_argument(
        '--show', action='store_true', help='show the detections in windows')
    parser.add_argument(
        '--show-dir',
        help='write images with detections to '
        'WORK_DIR/TIMESTAMP/SHOW_DIR')
    parser.add_argument(
        '--wait-time',
        type=float,
        default=2,
        help='seconds for which --show shows an image')
    add_cfg_options(parser)
    add_launcher(parser)
    add_json(parser)
    args = parser.parse_args(argv)
    if (args.checkpoint is None) == (args.checkpoint_option is None):
        parser.error('give one checkpoint, as CONFIG CHECKPOINT or as '
                     '--checkpoint CHECKPOINT')
    args.checkpoint = args.checkpoint or args.checkpoint_option
    if args.out is not None and not args.out.endswith(('.pkl', '.pickle')):
        parser.error(f'--out: expected a .pkl or .pickle file, got {args.out}')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def load_config(args: argparse.Namespace) -> Config:
    """Read the config and merge the command line into it."""
    from mmdet_clim.engine.config_checks import absolute_load_from, read_config
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher

    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))

    cfg.resume = False
    absolute_load_from(cfg)
    if args.show or args.show_dir:
        from mmdet.engine.hooks.utils import trigger_visualization_hook
        cfg = trigger_visualization_hook(cfg, args)
    return cfg


def main(argv: list[str] | None = None) -> None:
    """Build the runner and test."""
    args = parse_args(argv)
    from mmdet_clim.engine import prepare_cpu_processes
    from mmdet_clim.engine.config_checks import (
        check_files,
        check_parts,
        named_in_config,
    )
    from mmdet_clim.engine.runner import begin_with, build_runner
    cfg = load_config(args)
    # Some have none, as after a fine-tuning without boxes to evaluate on.
    check_parts(cfg, args.config,
                ('model', 'test_dataloader', 'test_cfg', 'test_evaluator'))
    check_files(cfg, ['test'], args.checkpoint)
    if args.out is not None and 'root' in cfg.test_cfg:
        raise ValueError('--out: expected a config of one data set; '
                         'test_cfg.outfile_prefix keeps the detections of '
                         'each of several')
    prepare_cpu_processes(cfg)
    with named_in_config(cfg):
        runner = build_runner(cfg)
        begin_with(runner, args.checkpoint)
        if args.out is not None:
            from mmdet.evaluation import DumpDetResults
            runner.test_evaluator.metrics.append(
                DumpDetResults(out_file_path=args.out))
        metrics = runner.test()
    # MMEngine has logged them for people.
    print_result(args, metrics)


if __name__ == '__main__':
    run_command(main)
