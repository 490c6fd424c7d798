# Licensed under the Apache License, Version 2.0.
"""What a fine-tuning asks of detectors that read their classes as a text."""
from collections.abc import Sequence

from mmengine.config import Config, ConfigDict

from mmdet_clim.models.families.text_conditioned import (
    TextConditionedFamily,
    text_family,
)
from mmdet_clim.registry import MODELS

# As configs/grounding: a caption tells of a whole tile, and has some ten
# tokens where a class name has one or two.
CAPTION_WEIGHT = 0.05
# Names that one prompt has room for beside those that an image shows.
PROMPT_NAMES = 40
# Hosts write prompts of their own data with these.
PROMPT_TRANSFORMS = ('RandomSamplingNegPos', 'BaseClassPrompt')
PROMPT_KEYS = ('text', 'custom_entities')
META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor',
             'flip', 'flip_direction')


def detector_type(cfg: Config) -> type:
    """The class of a config's detector.

    Args:
        cfg (Config): Of a plain detector.

    Raises:
        KeyError: If no such class is registered.
    """
    name = cfg.model.type
    if isinstance(name, type):
        return name
    if '.' not in name:
        name = f"{cfg.get('default_scope') or 'mmdet'}.{name}"
    found = MODELS.get(name)
    if found is None:
        raise KeyError(f'model.type: no detector is registered as {name!r}')
    return found


def reads_prompts(cfg: Config) -> bool:
    """Whether a config's detector reads its classes with each image.

    Args:
        cfg (Config): Of a plain detector.
    """
    return text_family(detector_type(cfg)) is not None


def _family(cfg: Config) -> TextConditionedFamily:
    """That of a config whose detector reads its classes."""
    family = text_family(detector_type(cfg))
    assert family is not None
    return family


def set_prompts(cfg: Config, vocabulary: dict, boxed: bool) -> None:
    """Have the data sets of a grounding detector tell it their classes.

    Args:
        cfg (Config): Of the plain detector, its data sets replaced. It is
            changed.
        vocabulary (dict): ``names`` and ``base_names``.
        boxed (bool): Whether there are boxes to train on.
    """
    for split in ('val', 'test'):
        if cfg.get(f'{split}_dataloader') is not None:
            dataset = cfg[f'{split}_dataloader'].dataset
            dataset.return_classes = True
            _pack_prompts(dataset.pipeline)
    if boxed:
        dataset = cfg.train_dataloader.dataset
        few = len(vocabulary['base_names']) <= PROMPT_NAMES
        pipeline = [
            step for step in dataset.pipeline
            if _name(step) not in PROMPT_TRANSFORMS
        ]
        _pack_prompts(pipeline)
        pipeline.insert(
            len(pipeline) - 1,
            ConfigDict(
                type='mmdet_clim.BaseClassPrompt',
                vocabulary=vocabulary,
                num_negatives=None if few else PROMPT_NAMES))
        dataset.pipeline = pipeline
    _family(cfg).complete(cfg.model)


def grounding_objectives(cfg: Config, vocabulary: dict) -> dict:
    """Captions and tags of mosaics as grounding data.

    Args:
        cfg (Config): Of the plain detector.
        vocabulary (dict): Of the tags.

    Returns:
        dict: Name to config of an objective.
    """
    by_text = 'text' in _family(cfg).matches
    return dict(
        caption=dict(
            type='mmdet_clim.GroundingObjective',
            texts='captions',
            num_compositions=4,
            loss_weight=CAPTION_WEIGHT,
            box_weight=0.0),
        tag=dict(
            type='mmdet_clim.GroundingObjective',
            texts='tags',
            vocabulary=vocabulary,
            num_negatives=PROMPT_NAMES,
            num_compositions=0,
            match='text' if by_text else 'box',
            box_weight=0.0))


def tokenize_prompts(cfg: Config, objectives: dict) -> dict:
    """The transform by which data workers make prompts of mosaics.

    Args:
        cfg (Config): Of the plain detector.
        objectives (dict): What :func:`grounding_objectives` gave.
    """
    return dict(
        type='mmdet_clim.TokenizePrompts',
        detector=cfg.model.type,
        language_model=cfg.model.language_model,
        # Others that come to them later have no prompts of mosaics.
        objectives=dict(objectives))


def _pack_prompts(pipeline: Sequence[ConfigDict]) -> None:
    """See that the prompt gets from the data set to the detector."""
    pack = pipeline[-1]
    keys = tuple(pack.get('meta_keys', META_KEYS))
    pack.meta_keys = (*keys, *(k for k in PROMPT_KEYS if k not in keys))


def _name(step: ConfigDict) -> str:
    """The name of a transform's type without scope."""
    kind = step.type
    return kind.rpartition('.')[2] if isinstance(kind, str) else kind.__name__
