# Licensed under the Apache License, Version 2.0.
"""Print a resolved config: bases merged, options applied."""

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_cfg_options


def main(argv: list[str] | None = None) -> None:
    """Print, and write the same to a file where one is named."""
    parser = Parser(description=__doc__)
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--clim',
        metavar='FRAGMENT',
        help='apply CLIM to the config, like tools/train.py --clim')
    parser.add_argument('--save-path', help='also write it to this .py file')
    add_cfg_options(parser)
    args = parser.parse_args(argv)
    if args.save_path is not None and not args.save_path.endswith('.py'):
        parser.error(f'--save-path: expected a .py file, got '
                     f'{args.save_path}')
    # It takes seconds to import.
    from mmdet_clim.engine.config_checks import read_config
    cfg = read_config(args.config, args.cfg_options, args.clim)
    if args.save_path is not None:
        cfg.dump(args.save_path)
    print(cfg.pretty_text)


if __name__ == '__main__':
    run_command(main)
