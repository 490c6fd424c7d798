# Licensed under the Apache License, Version 2.0.
"""Print a config as a run sees it: bases merged, options applied."""
import argparse

from mmengine.config import Config, DictAction

import mmdet_clim  # noqa: F401
from mmdet_clim.engine import add_clim, read_fragment


def main() -> None:
    """Print, and write the same to a file where one is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='path of the config')
    parser.add_argument(
        '--clim',
        metavar='FRAGMENT',
        help='with CLIM put on it, as tools/train.py --clim does')
    parser.add_argument('--save-path', help='write it to this .py file too')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='settings that override the config, as key=value')
    args = parser.parse_args()
    cfg = Config.fromfile(args.config)
    if args.clim is not None:
        cfg = add_clim(cfg, read_fragment(args.clim, args.cfg_options))
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    print(cfg.pretty_text)
    if args.save_path is not None:
        cfg.dump(args.save_path)


if __name__ == '__main__':
    main()
