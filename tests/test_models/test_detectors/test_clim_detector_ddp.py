# Licensed under the Apache License, Version 2.0.
"""Two real gloo processes against one process on the joined batch."""
import copy
from types import SimpleNamespace

import torch
import torch.multiprocessing as mp
from mmengine.model import MMDistributedDataParallel
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS
from torch import distributed

import mmdet_clim  # noqa: F401
from mmdet_clim.engine import UnreachedWeightsHook


def gradients(model, batch):
    """Gradients of one step; the wrapper of DDP averages them."""
    module = model.module if isinstance(model,
                                        MMDistributedDataParallel) else model
    data = module.data_preprocessor(copy.deepcopy(batch), True)
    loss, _ = module.parse_losses(model(**data, mode='loss'))
    loss.backward()
    # What one process does not train has no gradient, of several zeros.
    return {
        n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for n, p in module.named_parameters()
    }


def run_rank(rank, folder, cfg, batches):
    from mmdet.utils import register_all_modules
    register_all_modules()
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    torch.manual_seed(0)
    model = MMDistributedDataParallel(MODELS.build(cfg).train())
    for batch in batches:
        model.zero_grad()
        grads = gradients(model, batch[rank])
    queue = model.module.objectives['caption'].queue
    torch.save((grads, queue.ids), f'{folder}/rank{rank}.pth')
    # The process group ends with this process. To destroy it here can
    # deadlock: whoever holds the last reference to it joins, with Python's
    # global lock, the thread of gloo, which may need that lock (seen with
    # torch 2.13).


def test_gradients_equal_those_of_the_joined_batch(clim_cfg, make, tmp_path):
    for objective in clim_cfg['objectives'].values():
        objective['num_compositions'] = 0  # they are drawn per process
    caption = clim_cfg['objectives']['caption']
    caption['queue']['size'] = 24
    # The texts of all ranks, and activations that are computed again.
    caption['gather'] = True
    clim_cfg['objectives']['best_tag'] = dict(
        clim_cfg['objectives']['tag'], regions='best')
    clim_cfg['detector']['backbone']['with_cp'] = True
    images = [make['mosaic'](i) for i in range(6)]
    # Uneven: one mosaic on the first rank, two on the second, twice.
    batches = [[
        make['collate'](images[3 * step]),
        make['collate'](*images[3 * step + 1:3 * step + 3])
    ] for step in range(2)]
    mp.start_processes(
        run_rank, (str(tmp_path), clim_cfg, batches), 2, start_method='fork')

    torch.manual_seed(0)
    clim_cfg['detector']['backbone']['with_cp'] = False
    model = MODELS.build(clim_cfg).train()
    loss = model.objectives['caption'].region_loss
    for step in range(2):
        model.zero_grad()
        # Of 12 texts a rank has 6 on average, beside a queue of 0 and 12.
        loss.negative_weight = (6 + 12 * step) / (12 + 12 * step)
        expected = gradients(model,
                             make['collate'](*images[3 * step:3 * step + 3]))
    ids = model.objectives['caption'].queue.ids
    for rank in range(2):
        grads, rank_ids = torch.load(tmp_path / f'rank{rank}.pth')
        assert torch.equal(rank_ids, ids)
        assert grads.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(
                grads[name], expected[name], atol=1e-5, rtol=1e-3, msg=name)


def lone_rank(rank, folder, cfg, batches):
    from mmdet.utils import register_all_modules
    register_all_modules()
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    torch.manual_seed(0)
    model = MODELS.build(cfg).train()
    data = model.data_preprocessor(copy.deepcopy(batches[rank]), True)
    values = []
    for _ in range(2):
        torch.manual_seed(0)
        values.append(model(**data, mode='loss')['mosaic.caption.loss'].item())
    # Then the second rank has no mosaic, and neither waits for the other.
    if rank == 1:
        for part in data.values():
            del part['mosaic']
    try:
        model(**data, mode='loss')
    except ValueError as error:
        values.append(str(error))
    torch.save((values, model.objectives['caption'].queue.ids),
               f'{folder}/rank{rank}.pth')


def test_captions_are_those_of_the_rank_alone(clim_cfg, make, tmp_path):
    """By default, as published: no rank changes the loss of another."""
    for objective in clim_cfg['objectives'].values():
        objective['num_compositions'] = 0
    # The average over regions is that of all ranks, which have alike many.
    batches = [
        make['collate'](make['box'](rank), make['mosaic'](rank + 3))
        for rank in range(2)
    ]
    mp.start_processes(
        lone_rank, (str(tmp_path), clim_cfg, batches), 2, start_method='fork')
    for rank, batch in enumerate(batches):
        values, ids = torch.load(tmp_path / f'rank{rank}.pth')
        torch.manual_seed(0)
        model = MODELS.build(clim_cfg).train()
        data = model.data_preprocessor(copy.deepcopy(batch), True)
        for value in values[:2]:
            torch.manual_seed(0)
            alone = model(**data, mode='loss')['mosaic.caption.loss']
            torch.testing.assert_close(alone.item(), value)
        assert torch.equal(ids, model.objectives['caption'].queue.ids)
        assert 'mosaic' in values[2] and 'missing on ranks [1]' in values[2]


def two_steps(model, batches, folder, name):
    """AdamW with a large weight decay, on captions alone."""
    module = getattr(model, 'module', model)
    optim = OptimWrapper(
        torch.optim.AdamW(module.parameters(), lr=.1, weight_decay=.5))
    UnreachedWeightsHook().before_train(SimpleNamespace(optim_wrapper=optim))
    for batch in batches:
        model.train_step(copy.deepcopy(batch), optim)
    torch.save(module.state_dict(), f'{folder}/{name}.pth')


def run_two_steps(rank, folder, model, batches):
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2)
    two_steps(MMDistributedDataParallel(model), batches, folder, f'rank{rank}')


def test_weights_that_captions_do_not_train_are_left_alone(
        clim_cfg, make, tmp_path):
    """Weight decay moves on two ranks what it moves in one process."""
    model = MODELS.build(clim_cfg).train()
    before = copy.deepcopy(model.state_dict())
    batches = [make['collate'](make['mosaic'](i)) for i in range(2)]
    mp.start_processes(
        run_two_steps, (str(tmp_path), model, batches), 2, start_method='fork')
    two_steps(model, batches, tmp_path, 'alone')
    alone, *ranks = (
        torch.load(tmp_path / f'{name}.pth')
        for name in ('alone', 'rank0', 'rank1'))
    still = {key for key in before if torch.equal(before[key], alone[key])}
    assert any('rpn_head' in key for key in still)
    assert not any('backbone.conv1' in key for key in still)
    for rank in ranks:
        assert {key
                for key in before
                if torch.equal(before[key], rank[key])} == still
