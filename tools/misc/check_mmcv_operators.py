# Licensed under the Apache License, Version 2.0.
"""Fail where mmcv's operators do not load or do not work with this torch."""
import torch
from mmcv.ops import nms


def main() -> None:
    """Suppress one of two equal boxes."""
    boxes = torch.tensor([[0., 0., 2., 2.], [0., 0., 2., 2.]])
    _, kept = nms(boxes, torch.tensor([.9, .8]), 0.5)
    if kept.tolist() != [0]:
        raise RuntimeError(f'nms kept {kept.tolist()}; expected [0]')


if __name__ == '__main__':
    main()
