# Licensed under the Apache License, Version 2.0.
"""Extract the plain detector from a checkpoint of ``CLIMDetector``.

The result loads in the config of the plain detector and gives the same
predictions. The meta data of the run are kept; the objectives with their
queues, the optimizer, the schedules and the log are dropped.
"""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_json, print_result

# What takes seconds to import waits until the command line is read.
if TYPE_CHECKING:
    from mmengine.config import Config


def strip_checkpoint(checkpoint: Mapping,
                     config: Config | None = None) -> dict:
    """Build the checkpoint of the plain detector.

    Args:
        checkpoint (Mapping): As MMEngine's runner saves it.
        config (Config, optional): The plain detector's config, which replaces
            the one in the meta data.

    Returns:
        dict: ``state_dict`` and ``meta``.

    Raises:
        ValueError: It is not a checkpoint of a ``CLIMDetector``.
    """
    from mmdet_clim.engine.checkpoints import strip_state_dict
    if not isinstance(checkpoint, Mapping) or 'state_dict' not in checkpoint:
        found = (
            sorted(map(str, checkpoint))
            if isinstance(checkpoint, Mapping) else type(checkpoint).__name__)
        raise ValueError(
            f'checkpoint: expected the key "state_dict", got {found}')
    meta = dict(checkpoint.get('meta', {}))
    if config is not None:
        meta['cfg'] = config.pretty_text
    return dict(
        state_dict=strip_state_dict(checkpoint['state_dict']), meta=meta)


def main(argv: list[str] | None = None) -> None:
    """Strip one checkpoint."""
    parser = Parser(description=__doc__)
    parser.add_argument(
        'input', type=Path, help='checkpoint of a CLIMDetector')
    parser.add_argument(
        'output', type=Path, help='checkpoint of the plain detector to write')
    parser.add_argument(
        '--config',
        help='config of the plain detector, stored in the result; the weights '
        'must match it')
    add_json(parser)
    args = parser.parse_args(argv)
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    from mmdet_clim.engine.checkpoints import (
        load_weights,
        read_checkpoint,
        save_atomically,
    )
    config = Config.fromfile(args.config) if args.config else None
    stripped = strip_checkpoint(read_checkpoint(args.input), config)
    if config is not None:
        init_default_scope(config.get('default_scope', 'mmdet'))
        model = config.model.get('detector', config.model)
        load_weights(MODELS.build(model), stripped, args.input)
    save_atomically(stripped, args.output)
    size = args.output.stat().st_size
    print_result(args, dict(output=args.output, bytes=size),
                 f'{args.output}: {size / 2**20:.1f} MiB')


if __name__ == '__main__':
    run_command(main)
