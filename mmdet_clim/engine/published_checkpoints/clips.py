# Licensed under the Apache License, Version 2.0.
"""Published CLIPs, such as those that CLIM or CLIPSelf refined."""
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .building import empty_clip
from .conversion import Conversion, assign, fill, finish, without
from .families import recognise

#: Parts of a config's model that name a CLIP, the first that there is.
CLIP_PARTS = ('image_tower', 'backbone')
TRUNK = 'visual.trunk.'


def clip_of_config(model_cfg: Mapping[str, Any]) -> str:
    """open_clip's name of the CLIP that a config refines or looks through.

    Args:
        model_cfg (Mapping): Of the model.

    Raises:
        ValueError: If it has none.
    """
    for part in CLIP_PARTS:
        name = (model_cfg.get(part) or {}).get('model')
        if name:
            return name
    raise ValueError('config: expected a model with a CLIP '
                     '(model.image_tower.model or model.backbone.model), as '
                     f'the checkpoint is one, got {model_cfg.get("type")}')


def convert_clip(
    weights: Mapping[str, Tensor],
    model: str,
    allow_missing: Sequence[str] = (),
    ignore: Sequence[str] = ()
) -> Conversion:
    """The weights of a CLIP under open_clip's names.

    Args:
        weights (Mapping[str, Tensor]): As the checkpoint names them.
        model (str): open_clip's name of the CLIP.
        allow_missing (Sequence[str]): Patterns of open_clip's names that the
            checkpoint may lack.
        ignore (Sequence[str]): Patterns of the checkpoint's names to leave
            out.

    Returns:
        Conversion: What ``pretrained=`` takes, with a report.

    Raises:
        ValueError: If the model is unknown, or names or shapes do not fit;
            all of them are listed.
    """
    report = Conversion(recognise(list(weights)))
    clip = empty_clip(model)
    ours = clip.state_dict()
    problems: list[str] = []
    taken = without(weights, ignore, report)
    renamed = {name: name for name in taken}
    if report.family.name == 'eva_clip':
        renamed.update(_names_of_timm(taken, clip))
    found = assign(taken, renamed, ours, report, problems)
    fill(report, found, ours, allow_missing, problems)
    finish(report, weights, ours, allow_missing, ignore, problems)
    return report


def _names_of_timm(weights: Mapping[str, Tensor],
                   clip: nn.Module) -> dict[str, str]:
    """Names of EVA's image tower, by timm's own filter."""
    from timm.models.eva import Eva, checkpoint_filter_fn
    trunk = getattr(clip.visual, 'trunk', None)
    if not isinstance(trunk, Eva):
        raise ValueError('config: expected an EVA of open_clip, such as '
                         "model='EVA02-B-16', as the checkpoint is one, got "
                         f'an image tower {type(clip.visual).__name__}')
    filtered = checkpoint_filter_fn(dict(weights), trunk)
    # It hands the tensors on. Those that it resizes to other sizes would be
    # others; they are refused as unknown.
    origin = {id(weight): name for name, weight in weights.items()}
    return {
        origin[id(weight)]: TRUNK + name
        for name, weight in filtered.items() if id(weight) in origin
    }
