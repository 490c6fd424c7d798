# Licensed under the Apache License, Version 2.0.
import torch

from mmdet_clim.engine.runner import CLIMRunner


def test_pinned_memory_where_there_is_a_gpu(monkeypatch):
    cfg = dict(
        batch_size=1,
        num_workers=0,
        dataset=[0, 1],
        sampler=dict(type='DefaultSampler', shuffle=False))
    build = CLIMRunner.build_dataloader
    assert not build(cfg).pin_memory
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    assert build(cfg).pin_memory
    assert not build(dict(cfg, pin_memory=False)).pin_memory
