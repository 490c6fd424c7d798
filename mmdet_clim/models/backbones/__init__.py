# Licensed under the Apache License, Version 2.0.
from .dense_tower import DenseImageTower
from .open_clip_backbones import OpenCLIPResNet, OpenCLIPViT
from .tower_reader import EncodedImages

__all__ = ['DenseImageTower', 'EncodedImages', 'OpenCLIPResNet', 'OpenCLIPViT']
