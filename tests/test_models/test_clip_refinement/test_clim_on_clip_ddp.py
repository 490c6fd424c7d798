# Licensed under the Apache License, Version 2.0.
"""Two real gloo processes against one process on the joined batch."""
import copy
import json
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODELS
from torch import distributed

import mmdet_clim  # noqa: F401


def gradients(model, batch):
    """Loss and gradients of one step, through the wrapper's own forward."""
    module = model.module if isinstance(model,
                                        MMDistributedDataParallel) else model
    data = module.data_preprocessor(copy.deepcopy(batch), True)
    loss, _ = module.parse_losses(model(**data, mode='loss'))
    loss.backward()
    return loss.detach(), {
        n: p.grad.clone()
        for n, p in module.named_parameters() if p.requires_grad
    }


def run_rank(rank, folder, cfg, batches):
    from mmdet.utils import register_all_modules
    register_all_modules()
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    torch.manual_seed(0)
    model = MMDistributedDataParallel(MODELS.build(cfg).train())
    torch.rand(rank)  # what is drawn from now on, each rank draws for itself
    torch.save(gradients(model, batches[rank]), f'{folder}/rank{rank}.pth')
    # The process group ends with this process; see
    # test_detectors/test_clim_detector_ddp.py.


def check(cfg, make_batch, folder, whole_loss=True):
    """Five images per rank are a mosaic of four and a whole one each.

    A loss is that of the joined batch on every rank with ``whole_loss``, on
    their average without.
    """
    captions = ['a cat', 'two dogs', 'a cat', 'a cow', 'one dog'] * 2
    captions[7] = 'on grass'  # equal captions within a rank and across
    numbers = list(range(10))
    batches = [
        make_batch(numbers[:5], captions[:5]),
        make_batch(numbers[5:], captions[5:])
    ]
    mp.start_processes(
        run_rank, (str(folder), cfg, batches), 2, start_method='fork')
    # Joined: the two mosaics first, then the two whole images.
    order = [0, 1, 2, 3, 5, 6, 7, 8, 4, 9]
    torch.manual_seed(0)
    model = MODELS.build(copy.deepcopy(cfg)).train()
    loss, expected = gradients(model,
                               make_batch(order, [captions[i] for i in order]))
    ranks = [torch.load(folder / f'rank{rank}.pth') for rank in range(2)]
    average = (ranks[0][0] + ranks[1][0]) / 2
    for rank_loss, grads in ranks:
        torch.testing.assert_close(rank_loss if whole_loss else average, loss)
        assert grads.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(
                grads[name], expected[name], atol=1e-6, rtol=1e-3, msg=name)
            assert grads[name].abs().sum() > 0


def test_refinement(model_cfg, make_batch, tmp_path):
    check(model_cfg, make_batch, tmp_path)


def test_from_scratch_with_the_text_tower(model_cfg, make_batch, small_clip,
                                          tmp_path):
    """Its scale and bias, SigLIP has both, are no weights that learn."""
    clip = json.loads(Path(small_clip['model']).read_text())
    file = tmp_path / 'tiny-with-a-bias.json'
    file.write_text(json.dumps(dict(clip, init_logit_bias=-10)))
    cfg = dict(
        model_cfg,
        unlocked_blocks='all',
        text_encoder=dict(
            type='mmdet_clim.OpenCLIPTextTower', model=str(file)))
    check(cfg, make_batch, tmp_path)


def boxes_file(folder, counts):
    """So many boxes of each image, by its number, as COCO's results."""
    generator = torch.Generator().manual_seed(0)
    entries = []
    for number, count in enumerate(counts):
        for x, y, w, h in torch.rand(count, 4, generator=generator).tolist():
            entries.append(
                dict(
                    image_id=number,
                    bbox=[48 * x, 64 * y, 10 + 30 * w, 10 + 40 * h],
                    score=.5))
    (folder / 'boxes.json').write_text(json.dumps(entries))
    return dict(type='mmdet_clim.FileBoxes', file=str(folder / 'boxes.json'))


@pytest.mark.parametrize(
    'objective',
    [
        dict(type='mmdet_clim.SelfDistillationObjective'),
        dict(
            type='mmdet_clim.RegionLabelObjective',
            vocabulary=['cat', 'dog', 'cow'],
            min_confidence=.34),
        # 12 nouns of 52 are drawn, whatever some of them are labelled with.
        dict(
            type='mmdet_clim.RegionLabelObjective',
            vocabulary=['cat', 'dog', *(f'thing {n}' for n in range(50))],
            loss=dict(
                type='mmdet_clim.FederatedClassLoss',
                num_sampled=12,
                gather=True))
    ])
def test_ranks_of_other_numbers_of_boxes(model_cfg, make_batch, tmp_path,
                                         objective):
    boxes = boxes_file(tmp_path, [1, 2, 1, 1, 2, 9, 1, 8, 7, 9])
    cfg = dict(model_cfg, objectives=dict(other=dict(objective, boxes=boxes)))
    check(cfg, make_batch, tmp_path, whole_loss=False)
