# Licensed under the Apache License, Version 2.0.
"""Losses and gradients of every objective on every family, as they were.

``golden_losses.json`` holds, per case, each loss and metric of two steps and
two numbers of the gradients: their norm, and their sum weighted by cosines.
They were recorded before objectives got a context of their branch, but for
four: 'mm_text', whose queries were matched twice then, 'glip' and
'mm_encoder', whose proposals are now of the maps and of the encoder's output
that are there, dropped blocks and all, and 'c4_words', which reads and weights
bags as published now and whose images are noise: those of the other cases are
black, of which all crops of a teacher are alike, and which is nearest follows
from the machine's rounding.
All that is random is fixed, so the order in which objectives draw does not
matter. After a change that is meant to change values, write them anew with
``GOLDEN_WRITE=c4,glip pytest tests/test_models/test_golden_losses.py``.
"""
import json
import math
import os
import sys
import zlib
from pathlib import Path

import mmdet
import numpy as np
import pytest
import torch
from mmdet.utils import register_all_modules
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS

sys.path.insert(0, str(Path(__file__).parent))
from golden_cases import CASES, build_case  # noqa: E402  isort: skip

FILE = Path(__file__).with_name('golden_losses.json')
OF_PIXELS = ('c4_words', )
WRITE = os.environ.get('GOLDEN_WRITE', '').split(',')


def fill(model):
    """Weights that follow from their names alone, and no dropout."""
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.
    for name, parameter in model.named_parameters():
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        drawn = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            drawn = drawn / math.sqrt(parameter[0].numel())
            parameter.data = drawn * (1.4 if parameter.dim() == 4 else 1.)
        elif name.endswith('bias'):
            parameter.data = drawn * .1
        elif parameter.dim() == 1:
            parameter.data = 1 + drawn * .1


def digest(model, data):
    """Losses and gradients of one step."""
    model.zero_grad()
    losses = model(**data, mode='loss')
    model.parse_losses(losses)[0].backward()
    norm = total = 0.
    for name, parameter in sorted(model.named_parameters()):
        if parameter.grad is not None:
            grad = parameter.grad.double().flatten()
            start = zlib.crc32(name.encode()) % 1000
            angles = torch.arange(len(grad), dtype=torch.double) + start
            norm += grad.square().sum().item()
            total += (grad * angles.cos()).sum().item()
    values = {
        key: value.item()
        for key, value in losses.items() if key.startswith('mosaic.')
    }
    return dict(values, gradient_norm=math.sqrt(norm), gradient_sum=total)


def pixels(seed):
    """Noise that ``nothing_random`` leaves alone."""
    drawn = np.random.default_rng(seed).integers(0, 256, (3, 64, 64))
    return torch.from_numpy(drawn.astype(np.uint8))


@pytest.mark.parametrize('name', CASES)
def test_losses_and_gradients_are_as_they_were(name, request, make, batch,
                                               nothing_random):
    if CASES[name].needs_text and mmdet.__version__ == '3.5.1':
        pytest.skip('see test_grounding_reader.py')
    register_all_modules()
    # Made now: it draws, whichever test is the first to ask for it.
    request.getfixturevalue('small_bert')
    torch.manual_seed(0)
    model = MODELS.build(
        ConfigDict(build_case(name, request.getfixturevalue, Config)))
    fill(model)
    model.train()
    found = []
    for step in range(2):
        single, sample = make['mosaic'](7 + step)
        # An image that is no mosaic, as the branch of captions has it.
        sample.set_metainfo(
            dict(
                captions=[['a cat.', 'two dogs.']],
                tags=[[0, 2]],
                image_ids=[99],
                image_keys=[99],
                mosaic_grid=(1, 1)))
        sample.gt_instances = sample.gt_instances[:1]
        sample.gt_instances.bboxes = torch.tensor([[0., 0., 64., 64.]])
        samples = [make['mosaic'](3 + step), (single, sample)]
        samples.append(make['mosaic'](4 + step))
        samples[-1][1].set_metainfo(dict(tags=[[], [1, 4], [], [2]]))
        if name in OF_PIXELS:
            samples = [(pixels(100 * step + place), sample)
                       for place, (_, sample) in enumerate(samples)]
        data = model.data_preprocessor(make['collate'](*samples), True)
        found.append(digest(model, data))
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    if name in WRITE:
        known[name] = found
        FILE.write_text(json.dumps(known, indent=1, sort_keys=True) + '\n')
    for mine, golden in zip(found, known[name]):
        assert mine.keys() == golden.keys()
        for key, value in mine.items():
            # A teacher's crops of noise are resampled, which rounds more.
            rounds = 'gradient' in key or (name in OF_PIXELS
                                           and 'distillation' in key)
            tolerance = 2e-5 if rounds else 2e-6
            scale = golden['gradient_norm'] if 'gradient' in key else 1
            assert value == pytest.approx(
                golden[key], rel=tolerance,
                abs=tolerance * max(scale, 1e-3)), key
