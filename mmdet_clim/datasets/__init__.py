# Licensed under the Apache License, Version 2.0.
"""Image-text sources, base/novel datasets, and the sampler that joins them."""
from .coco_panoptic_regions import CocoPanopticRegionDataset
from .draws import ClassBalancedDataset
from .image_files import read_image
from .image_text import ImageTextDataset
from .images import UnreadableImageError, decode_image
from .multi_source import (
    MultiSourceBatchSampler,
    MultiSourceDataset,
    MultiSourceSampler,
)
from .ov_coco import CheckedCocoDataset, OVCoco80Dataset, OVCocoDataset
from .ov_lvis import OVLVISDataset
from .shard_stream import ShardStreamDataset
from .vocabulary import Vocabulary, build_vocabulary

__all__ = [
    'CheckedCocoDataset', 'ClassBalancedDataset', 'CocoPanopticRegionDataset',
    'ImageTextDataset', 'MultiSourceBatchSampler', 'MultiSourceDataset',
    'MultiSourceSampler', 'OVCoco80Dataset', 'OVCocoDataset', 'OVLVISDataset',
    'ShardStreamDataset', 'UnreadableImageError', 'Vocabulary',
    'build_vocabulary', 'decode_image', 'read_image'
]
