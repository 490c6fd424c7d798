# Licensed under the Apache License, Version 2.0.
"""Every kind of type has a registry of this package's scope."""
import importlib

import pytest
import torch
from mmdet.datasets.transforms import Resize
from mmdet.models.task_modules import BboxOverlaps2D
from mmengine.hooks import LoggerHook
from mmengine.logging import MMLogger
from mmengine.registry import OPTIMIZERS, TASK_UTILS, Registry, root
from torch import nn

from mmdet_clim import registry
from mmdet_clim.engine import IterationSeedHook

ROOTS = [r for r in vars(root).values() if isinstance(r, Registry)]


@pytest.mark.parametrize('parent', ROOTS, ids=[r.name for r in ROOTS])
def test_every_root_registry_has_a_child_of_the_scope(parent):
    child = parent.children['mmdet_clim']
    assert child in vars(registry).values()
    # What builds from configs of this kind is the parent's own.
    assert child.build_func is parent.build_func
    for location in child._locations:
        importlib.import_module(location)


def test_a_type_of_mmengine_in_the_scope_is_built_without_a_warning(caplog):
    """As in a config whose base is ``mmdet_clim::...``."""
    # MMEngine's loggers stand apart from the root that caplog listens to.
    MMLogger.get_instance('registry').addHandler(caplog.handler)
    params = list(nn.Linear(1, 1).parameters())
    for scope, warned in (('mmdet_clim', False), ('no_such_scope', True)):
        caplog.clear()
        optimizer = OPTIMIZERS.build(
            dict(type='SGD', params=params, lr=.5, _scope_=scope))
        assert type(optimizer) is torch.optim.SGD
        assert ('As a workaround' in caplog.text) == warned


def test_what_mmdet_builds_without_a_scope_is_its_own():
    """Inside a model whose config is of this scope."""
    assigner = TASK_UTILS.build(
        dict(
            type='mmdet.MaxIoUAssigner',
            pos_iou_thr=.5,
            neg_iou_thr=.5,
            _scope_='mmdet_clim'))
    assert type(assigner.iou_calculator) is BboxOverlaps2D


def test_own_types_come_before_those_of_mmdet_and_mmengine():
    assert registry.HOOKS.get('IterationSeedHook') is IterationSeedHook
    # mmcv has another one.
    assert registry.TRANSFORMS.get('Resize') is Resize
    assert registry.HOOKS.get('LoggerHook') is LoggerHook
    assert registry.HOOKS.get('mmdet_clim.LoggerHook') is None
    assert registry.MODELS.get('NoSuchModel') is None
