# Licensed under the Apache License, Version 2.0.
"""Weights that no loss reaches; with two ranks: test_clim_detector_ddp.py."""
from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict

from mmdet_clim.engine.hooks import UnreachedWeightsHook
from mmdet_clim.engine.hooks import unreached_weights_hook as module


def one_step(weights, grads, wrap=OptimWrapper):
    """Decay alone: without momentum, a gradient of zero moves nothing."""
    parameters = [torch.nn.Parameter(torch.tensor(w)) for w in weights]
    optim = wrap(torch.optim.AdamW(parameters, lr=.5, weight_decay=.5))
    UnreachedWeightsHook().before_train(SimpleNamespace(optim_wrapper=optim))
    for parameter, grad in zip(parameters, grads):
        parameter.grad = None if grad is None else torch.tensor(grad)
    for of_part in getattr(optim, 'optim_wrappers', dict(own=optim)).values():
        of_part.step()
    return [parameter.tolist() for parameter in parameters]


@pytest.mark.parametrize(
    'wrap', [OptimWrapper, lambda o: OptimWrapperDict(own=OptimWrapper(o))])
def test_zeros_throughout_are_no_gradient(monkeypatch, wrap):
    monkeypatch.setattr(module, 'get_world_size', lambda: 2)
    zero, part, nothing, empty = one_step([[4., 4.], [4., 4.], [4., 4.], []],
                                          [[0., 0.], [0., 1.], None, []], wrap)
    assert zero == nothing == [4., 4.] and empty == []
    # Of a gradient that is zero in part, all of the weight decays.
    assert part == pytest.approx([3., 2.5])
    assert one_step([[4.]], [None]) == [[4.]]


def test_one_process_is_left_as_it_is():
    assert one_step([[4.]], [[0.]])[0] == pytest.approx([3.])
