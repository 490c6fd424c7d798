# Licensed under the Apache License, Version 2.0.
"""Values of a resolved config, by paths that name the parts of a list."""
import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import PARAM_SCHEDULERS


def look_up(node, path):
    """The value of a dotted path.

    Of a list, a part is that of its entries whose ``type`` is the name,
    without a scope: ``train_dataloader.dataset.pipeline.RandomFlip.prob``;
    or a number, where entries are of one type.
    """
    for name in path.split('.'):
        if isinstance(node, (list, tuple)) and name.isdigit():
            node = node[int(name)]
        elif isinstance(node, (list, tuple)):
            found = [
                part for part in node
                if str(part.get('type')).rpartition('.')[2] == name
            ]
            assert len(found) == 1, f'{path}: {len(found)} of {name}'
            node = found[0]
        else:
            assert name in node, f'{path}: no {name} in {sorted(node)}'
            node = node[name]
    return node


def differences(cfg, table):
    """Paths whose value is another than the table's: {path: (ours, its)}."""
    found = {path: look_up(cfg, path) for path in table}
    return {
        path: (value, table[path])
        for path, value in found.items() if value != table[path]
    }


def types(pipeline):
    """Names of the transforms, without scopes."""
    return [step['type'].rpartition('.')[2] for step in pipeline]


def rates(cfg, steps, epoch_length):
    """Learning rates of each step: of weights, and of a temperature.

    Args:
        cfg (Config): A recipe.
        steps (int): Iterations to make.
        epoch_length (int): Iterations of an epoch.

    Returns:
        list[tuple[float, float]]: One pair per iteration.
    """
    model = torch.nn.Module()
    model.weight = torch.nn.Parameter(torch.zeros(2, 2))
    model.log_temperature = torch.nn.Parameter(torch.zeros(()))
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    schedulers = []
    for scheduler in cfg.param_scheduler:
        options = dict(scheduler, optimizer=wrapper)
        if options.pop('convert_to_iter_based', False):
            kind = PARAM_SCHEDULERS.get(options.pop('type'))
            schedulers.append(
                kind.build_iter_from_epoch(
                    epoch_length=epoch_length, **options))
        else:
            schedulers.append(PARAM_SCHEDULERS.build(options))
    made = []
    for step in range(1, steps + 1):
        made.append(tuple(g['lr'] for g in wrapper.optimizer.param_groups))
        wrapper.step()
        for scheduler in schedulers:
            if not scheduler.by_epoch or step % epoch_length == 0:
                scheduler.step()
    return made
