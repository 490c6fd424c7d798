# Licensed under the Apache License, Version 2.0.
"""Sphinx: `make docs` writes docs/_build/html."""
from mmcv.transforms.utils import cache_randomness

import mmdet_clim

project = 'mmdet_clim'
author = 'The mmdet_clim contributors'
project_copyright = '2026, The mmdet_clim contributors'
release = mmdet_clim.__version__

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
    'sphinx.ext.mathjax',
]
exclude_patterns = ['_build', 'logs']
html_theme = 'furo'
html_title = f'mmdet_clim {release}'
html_copy_source = False

myst_heading_anchors = 3
autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
# Signatures read as they are written, and of mmdet's bases only the names.
autodoc_preserve_defaults = True


def _read_from_class(method, instance, owner):
    return method if instance is None else _read(method, instance, owner)


# mmcv's `cache_randomness` can be read from an instance only, and autodoc
# reads from the class.
_read = cache_randomness.__get__
cache_randomness.__get__ = _read_from_class
