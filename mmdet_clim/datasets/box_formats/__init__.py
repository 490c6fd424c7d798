# Licensed under the Apache License, Version 2.0.
"""Boxes as labelling tools export them, read as COCO's layout."""
from .reading import OwnBoxes, read_boxes

__all__ = ['OwnBoxes', 'read_boxes']
