# Licensed under the Apache License, Version 2.0.
"""Every kind of type has a registry of this package's scope."""
import importlib

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.registry import OPTIMIZERS, Registry, root
from torch import nn

from mmdet_clim import registry

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
