# Licensed under the Apache License, Version 2.0.
"""Test a detector that a config and a checkpoint describe."""
import argparse
import os
from pathlib import Path

# First: it checks the stack that all the others need.
import mmdet_clim  # noqa: F401  isort: skip
from mmdet.engine.hooks.utils import trigger_visualization_hook
from mmdet.evaluation import DumpDetResults
from mmengine.config import Config, DictAction

from mmdet_clim.command import key_value, run_command
from mmdet_clim.engine import prepare_cpu_processes
from mmdet_clim.engine.config_checks import (
    absolute_load_from,
    check_files,
    check_parts,
    named_in_config,
    read_config,
)
from mmdet_clim.engine.runner import begin_with, build_runner


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Test a detector')
    parser.add_argument('config', help='path of the config')
    parser.add_argument('checkpoint', nargs='?', help='path of the checkpoint')
    parser.add_argument(
        '--checkpoint',
        dest='checkpoint_option',
        metavar='CHECKPOINT',
        help='the same, by name')
    parser.add_argument(
        '--work-dir',
        help='where the metrics go '
        '(default: work_dirs/CONFIG_NAME)')
    parser.add_argument(
        '--out', help='write the predictions to this .pkl file as well')
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
        help='seconds that --show shows an image')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        type=key_value,
        help='settings that override the config, as key=value; lists as '
        'key="[a,b]" or key=a,b, nested ones as key="[(a,b),(c,d)]", '
        'without white space')
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='who started the processes of a distributed run')
    # torch.distributed.launch passes it; MMEngine reads the environment.
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=0, help='(launcher)')
    args = parser.parse_args()
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
    cfg = read_config(args.config, args.cfg_options)
    cfg.launcher = args.launcher

    if args.work_dir is not None:
        cfg.work_dir = args.work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs', Path(args.config).stem))

    cfg.resume = False
    absolute_load_from(cfg)
    if args.show or args.show_dir:
        cfg = trigger_visualization_hook(cfg, args)
    return cfg


def main() -> None:
    """Build the runner and test."""
    args = parse_args()
    cfg = load_config(args)
    # Some have none, as after a fine-tuning without boxes to evaluate on.
    check_parts(cfg, args.config,
                ('model', 'test_dataloader', 'test_cfg', 'test_evaluator'))
    check_files(cfg, ['test'], args.checkpoint)
    prepare_cpu_processes(cfg)
    with named_in_config(cfg):
        runner = build_runner(cfg)
        begin_with(runner, args.checkpoint)
        if args.out is not None:
            runner.test_evaluator.metrics.append(
                DumpDetResults(out_file_path=args.out))
        runner.test()


if __name__ == '__main__':
    run_command(main)
