# Licensed under the Apache License, Version 2.0.
from .dense_tower import DenseImageTower
from .tower_reader import EncodedImages

__all__ = ['DenseImageTower', 'EncodedImages']
