# Licensed under the Apache License, Version 2.0.
r"""Train a list of configs with several seeds and compare them in one table.

Finished runs are not repeated, and interrupted ones are resumed: the same
command can be run again with further configs or seeds.

    python tools/analysis/ablation.py configs/openmoji/ablation/*.py \
        --seeds 0 1 2 --out-dir work_dirs/ablation
"""
import argparse
import sys
from pathlib import Path

from mmdet_clim_cli.calls import call
from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import (
    Parser,
    add_cfg_options,
    add_json,
    add_seeds,
)

TOOLS = Path(__file__).resolve().parents[1]


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        renamed={'--out': '--out-dir'},
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'configs', type=Path, nargs='+', help='one row of the table each')
    add_seeds(parser, default=[0, 1, 2])
    parser.add_argument(
        '--out-dir',
        type=Path,
        required=True,
        help='folder of the runs, table.md, table.json, table.png and '
        'curves.png')
    add_cfg_options(parser, 'settings for every training', default={})
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='start every training from scratch')
    add_json(parser)
    args = parser.parse_args()
    for config in args.configs:
        if not config.is_file():
            parser.error(f'{config}: no such config')
    names = [config.stem for config in args.configs]
    if len(set(names)) < len(names):
        parser.error(f'configs: expected different file names, got {names}')
    return args


def main() -> None:
    """Train what is not trained yet, and compare."""
    args = parse_args()
    # It takes seconds to import.
    from mmdet_clim.engine import (
        Steps,
        check_run,
        finish_training,
        resolve_run,
        run_fingerprint,
    )

    # All rows with one seed first: a run that is stopped leaves a table.
    runs = {
        f'{config.stem}, seed {seed}':
        resolve_run(config, _work_dir(args, config, seed), seed,
                    args.cfg_options)
        for seed in args.seeds
        for config in args.configs
    }
    try:
        for cfg in runs.values():
            check_run(cfg.work_dir, run_fingerprint(cfg), args.overwrite)
        steps = Steps('ablation', {name: {} for name in runs})
        for name, cfg in runs.items():
            with steps.step(name, Path(cfg.work_dir, 'output.log')) as report:
                finish_training(cfg, args.overwrite, report)
    except (OSError, RuntimeError) as error:
        sys.exit(f'error: {error}')
    rows = []
    for config in args.configs:
        rows += ['--run', config.stem]
        rows += [str(_work_dir(args, config, seed)) for seed in args.seeds]
    call(TOOLS / 'analysis' / 'compare_runs.py', *rows, '--out-dir',
         args.out_dir, *(['--json'] if args.json else []))


def _work_dir(args: argparse.Namespace, config: Path, seed: int) -> Path:
    return args.out_dir / config.stem / f'seed{seed}'


if __name__ == '__main__':
    run_command(main)
