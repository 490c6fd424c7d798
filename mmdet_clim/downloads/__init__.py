# Licensed under the Apache License, Version 2.0.
"""Files that others publish: what there is, and how it is fetched."""
from .fetching import fetch
from .known import DATASETS, Published, find_published

__all__ = ['DATASETS', 'Published', 'fetch', 'find_published']
