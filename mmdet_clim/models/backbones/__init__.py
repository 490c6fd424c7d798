# Licensed under the Apache License, Version 2.0.
from .backbone_tower import BackboneTower
from .image_tower import EncodedImages, ImageTower
from .open_clip_backbones import DenseImageTower, OpenCLIPResNet, OpenCLIPViT
from .timm_backbone import TimmBackbone

__all__ = [
    'BackboneTower', 'DenseImageTower', 'EncodedImages', 'ImageTower',
    'OpenCLIPResNet', 'OpenCLIPViT', 'TimmBackbone'
]
