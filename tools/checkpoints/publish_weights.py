# Licensed under the Apache License, Version 2.0.
"""Write the weights of a run as a small file for publication.

The optimizer, the schedules and the log are dropped, floating-point weights
are stored in half precision, and of the meta data the config, the classes,
the seed and the iteration are kept. The file loads like any other checkpoint.
"""
from collections.abc import Mapping
from pathlib import Path

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_json, print_result

KEPT_META = ('cfg', 'dataset_meta', 'seed', 'iter', 'mmengine_version')


def publishable(checkpoint: Mapping) -> dict:
    """Reduce a checkpoint to what its weights need.

    Args:
        checkpoint (Mapping): As MMEngine's runner saves it.

    Returns:
        dict: ``state_dict``, floating-point tensors as float16, and ``meta``.

    Raises:
        ValueError: If there is no ``state_dict``, or a weight does not fit
            half precision.
    """
    if 'state_dict' not in checkpoint:
        raise ValueError('checkpoint: expected the key "state_dict", got '
                         f'{sorted(map(str, checkpoint))}')
    weights = {}
    for name, weight in checkpoint['state_dict'].items():
        if weight.is_floating_point():
            half = weight.half()
            if half.isfinite().sum() != weight.isfinite().sum():
                raise ValueError(
                    f'{name}: expected values that fit half precision (up '
                    f'to 65504), got {weight.abs().max().item():g}')
            weight = half
        weights[name] = weight.clone()
    meta = checkpoint.get('meta', {})
    return dict(
        state_dict=weights,
        meta={key: meta[key]
              for key in KEPT_META if key in meta})


def main(argv: list[str] | None = None) -> None:
    """Publish one checkpoint."""
    parser = Parser(description=__doc__)
    parser.add_argument('input', type=Path, help='checkpoint of a run')
    parser.add_argument('output', type=Path, help='file to write')
    add_json(parser)
    args = parser.parse_args(argv)
    # It takes seconds to import.
    from mmdet_clim.engine.checkpoints import read_checkpoint, save_atomically
    save_atomically(publishable(read_checkpoint(args.input)), args.output)
    size = args.output.stat().st_size
    print_result(args, dict(output=args.output, bytes=size),
                 f'{args.output}: {size / 2**20:.1f} MiB')


if __name__ == '__main__':
    run_command(main)
