# Licensed under the Apache License, Version 2.0.
"""Registries of scope ``mmdet_clim``, children of MMEngine's root ones.

A type written with its scope, such as ``mmdet_clim.MosaicCLIM``, imports the
module that defines it from any default scope. MMEngine swallows an
``ImportError`` raised while this file is imported, so it imports nothing but
MMEngine.

Every root registry has a child here, also where this package registers
nothing. A config that inherits from ``mmdet_clim::...`` carries this scope on
its hooks, loops, optimisers and so on, and MMEngine warns of each kind that
has no registry of that scope ("As a workaround, the current ... registry is
used").
"""
from importlib import import_module

from mmengine import registry as root

SCOPE = 'mmdet_clim'
HOST_SCOPE = 'mmdet'


class PlugInRegistry(root.Registry):
    """A registry in which mmdet's types need no scope.

    The scope of a model's config also holds while mmdet's own code builds
    the parts that it names without a scope, such as the IoU calculator of an
    assigner. A type that this package lacks is therefore mmdet's, or else
    MMEngine's, as in a config whose default scope is ``mmdet``.
    """

    def get(self, key: str) -> type | None:
        """The type of this name, None if there is none."""
        scope, name = self.split_scope_key(key)
        if scope is None:
            self.import_from_location()
            if name not in self.module_dict:
                import_module(f'{HOST_SCOPE}.registry')
                host = self.parent.children.get(HOST_SCOPE)
                if host is not None:
                    return host.get(key)
        return super().get(key)


def _child(parent: root.Registry, location: str) -> root.Registry:
    """A registry of this scope whose types lie in one module."""
    return PlugInRegistry(
        parent.name, parent=parent, scope=SCOPE, locations=[location])


# The engine.
RUNNERS = _child(root.RUNNERS, 'mmdet_clim.engine')
RUNNER_CONSTRUCTORS = _child(root.RUNNER_CONSTRUCTORS, 'mmdet_clim.engine')
LOOPS = _child(root.LOOPS, 'mmdet_clim.engine')
HOOKS = _child(root.HOOKS, 'mmdet_clim.engine.hooks')
STRATEGIES = _child(root.STRATEGIES, 'mmdet_clim.engine')
OPTIMIZERS = _child(root.OPTIMIZERS, 'mmdet_clim.engine')
OPTIM_WRAPPERS = _child(root.OPTIM_WRAPPERS, 'mmdet_clim.engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child(root.OPTIM_WRAPPER_CONSTRUCTORS,
                                    'mmdet_clim.engine')
PARAM_SCHEDULERS = _child(root.PARAM_SCHEDULERS, 'mmdet_clim.engine')
LOG_PROCESSORS = _child(root.LOG_PROCESSORS, 'mmdet_clim.engine')
INFERENCERS = _child(root.INFERENCERS, 'mmdet_clim.engine')

# Data.
DATASETS = _child(root.DATASETS, 'mmdet_clim.datasets')
DATA_SAMPLERS = _child(root.DATA_SAMPLERS, 'mmdet_clim.datasets')
TRANSFORMS = _child(root.TRANSFORMS, 'mmdet_clim.datasets.transforms')
FUNCTIONS = _child(root.FUNCTIONS, 'mmdet_clim.datasets')

# Models.
MODELS = _child(root.MODELS, 'mmdet_clim.models')
MODEL_WRAPPERS = _child(root.MODEL_WRAPPERS, 'mmdet_clim.models')
WEIGHT_INITIALIZERS = _child(root.WEIGHT_INITIALIZERS, 'mmdet_clim.models')
TASK_UTILS = _child(root.TASK_UTILS, 'mmdet_clim.models')

# Evaluation and pictures.
METRICS = _child(root.METRICS, 'mmdet_clim.evaluation')
EVALUATOR = _child(root.EVALUATOR, 'mmdet_clim.evaluation')
VISUALIZERS = _child(root.VISUALIZERS, 'mmdet_clim.visualization')
VISBACKENDS = _child(root.VISBACKENDS, 'mmdet_clim.visualization')
