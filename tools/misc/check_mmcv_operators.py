# Licensed under the Apache License, Version 2.0.
"""Compare operators of mmcv with plain formulas, on the CPU and the GPU.

Fails where mmcv is of another version, or where an operator computes another
value or gradient than its formula: NMS, RoIAlign (aligned and not),
deformable convolution, modulated deformable convolution and multi-scale
deformable attention.
"""
import argparse
from pathlib import Path


def main() -> None:
    """Check the version, then the operators on each device they know."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('version', help='that mmcv must have')
    parser.add_argument(
        'cpu_only',
        type=Path,
        help='a file that will exist if the operators were built without '
        'CUDA, and only then')
    args = parser.parse_args()
    # Late: these take seconds to import.
    import mmcv
    import torch
    from mmcv import ops
    from operator_checks import CHECKS
    if mmcv.__version__ != args.version:
        raise SystemExit(
            f'mmcv: expected {args.version}, got {mmcv.__version__}')
    cpu_only = ops.get_compiling_cuda_version() == 'not available'
    args.cpu_only.unlink(missing_ok=True)
    if cpu_only:
        args.cpu_only.touch()
    torch.manual_seed(0)
    devices = ['cpu']
    if torch.cuda.is_available() and not cpu_only:
        devices.append('cuda')
    for device in devices:
        for check in CHECKS:
            check(device)
        print(f'mmcv {mmcv.__version__}: operators agree with their formulas '
              f'on {device}')


if __name__ == '__main__':
    main()
