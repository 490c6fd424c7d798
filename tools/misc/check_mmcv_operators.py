# Licensed under the Apache License, Version 2.0.
"""Fail where mmcv is another or its operators do not work with this torch."""
import sys
from pathlib import Path

import mmcv
import torch
from mmcv.ops import get_compiling_cuda_version, nms


def main(version: str, cpu_only: Path) -> None:
    """Suppress one of two equal boxes.

    Args:
        version (str): The version that mmcv must have.
        cpu_only (Path): A file that will exist if the operators were built
            without CUDA, and only then.
    """
    if mmcv.__version__ != version:
        sys.exit(f'mmcv: expected {version}, got {mmcv.__version__}')
    boxes = torch.tensor([[0., 0., 2., 2.], [0., 0., 2., 2.]])
    _, kept = nms(boxes, torch.tensor([.9, .8]), 0.5)
    if kept.tolist() != [0]:
        sys.exit(f'nms of mmcv: expected [0], got {kept.tolist()}')
    cpu_only.unlink(missing_ok=True)
    if get_compiling_cuda_version() == 'not available':
        cpu_only.touch()


if __name__ == '__main__':
    main(sys.argv[1], Path(sys.argv[2]))
