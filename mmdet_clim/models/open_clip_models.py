# Licensed under the Apache License, Version 2.0.
"""Models of open_clip by name, folder or configuration file."""
import difflib
import logging
import zipfile
from pathlib import Path

from mmengine.logging import print_log
from torch import nn

from mmdet_clim.datasets.json_files import read_json

from .other_packages import errors_alone

#: Prefixes with which open_clip finds weights itself.
SELF_CONTAINED = ('local-dir:', 'hf-hub:')
#: How many keys of a checkpoint that does not fit an error names.
SHOWN_KEYS = 5


def create_clip(model: str, pretrained: str | None, owner: str) -> nn.Module:
    """Build an open_clip model and load its weights.

    Args:
        model (str): Name of an open_clip model (``open_clip.list_models()``),
            path of a model configuration (``.json``, open_clip's format), or
            open_clip's ``local-dir:FOLDER`` or ``hf-hub:NAME``.
        pretrained (str, optional): Path of a checkpoint, or a tag of the
            model that open_clip downloads. None: random weights, unless
            ``model`` is a folder or on the hub; for tests only.
        owner (str): Who asks, for the warning of random weights.

    Returns:
        nn.Module: The open_clip model, in float32 on the CPU.

    Raises:
        ValueError: If the model is unknown (the message lists those that
            exist), ``pretrained`` is neither a file nor a tag of it, is an
            archive of TorchScript, or is a checkpoint of another architecture
            (the message says which keys differ).
        FileNotFoundError: If the configuration file does not exist, or the
            weights of a tag can not be fetched.
    """
    # open_clip imports torchvision, for which importing mmdet_clim prepares;
    # a project without CLIP need not have either.
    import open_clip
    if model.startswith(SELF_CONTAINED):
        return open_clip.create_model(model, weights_only=True)
    name = model_name(model)
    _check_names(name, pretrained)
    if _is_torch_script(pretrained):
        raise ValueError(
            f'pretrained={pretrained!r} is a TorchScript archive, as OpenAI '
            'publishes its CLIPs; expected a state dict. '
            "pretrained='openai' lets open_clip download and convert it; by "
            'hand, save torch.jit.load(FILE).state_dict() without '
            "'input_resolution', 'context_length' and 'vocab_size'")
    if pretrained is None:
        print_log(
            f'{owner}: model={model!r} without pretrained=: its weights are '
            'random.', 'current', logging.WARNING)
    try:
        # The error of a download says enough; each try would say it again.
        with errors_alone('huggingface_hub'):
            return open_clip.create_model(name, pretrained, weights_only=True)
    except Exception as error:
        if _is_of_network(error) and not Path(str(pretrained)).is_file():
            raise FileNotFoundError(
                f'pretrained={pretrained!r} of model={model!r} could not be '
                f'fetched ({" ".join(str(error).split())[:200]}); give the '
                'path of a file of its weights') from error
        if not isinstance(error, (RuntimeError, KeyError, AttributeError)) \
                or not _is_state_dict(pretrained):
            raise
        raise ValueError(
            f'pretrained={pretrained!r} does not have the weights of model='
            f'{model!r}: {_differences(name, str(pretrained))}') from error


def model_name(model: str) -> str:
    """The name by which open_clip knows a model, given it or a file.

    Args:
        model (str): A name, which is returned as it is, or the path of a
            model configuration, which open_clip then knows by the file's
            base name.

    Raises:
        FileNotFoundError: If the file does not exist.
        ValueError: If open_clip has another model of that name, or the file
            is no model configuration.
    """
    import open_clip
    if not model.endswith('.json'):
        return model
    path = Path(model)
    if not path.is_file():
        raise FileNotFoundError(f'model={model!r} does not exist')
    config = read_json(path)
    missing = {'embed_dim', 'vision_cfg', 'text_cfg'} - set(config)
    if missing:
        raise ValueError(f'model={model!r}: expected the keys embed_dim, '
                         f'vision_cfg and text_cfg, missing {sorted(missing)}')
    known = open_clip.get_model_config(path.stem)
    if known is None:
        open_clip.add_model_config(path)
    elif known != config:
        raise ValueError(f'model={model!r}: open_clip has another model of '
                         f'the name {path.stem!r}; rename the file')
    return path.stem


def _is_of_network(error: Exception) -> bool:
    """Whether a download failed, of whichever library."""
    return (isinstance(error, OSError)
            # open_clip's own, around those of the libraries.
            or str(error).startswith('Failed to download') or
            type(error).__module__.startswith(
                ('httpx', 'httpcore', 'huggingface_hub', 'requests',
                 'urllib3')))


def _is_torch_script(pretrained: str | None) -> bool:
    """Whether it is a file that torch.jit.save wrote."""
    if pretrained is None or not zipfile.is_zipfile(pretrained):
        return False
    with zipfile.ZipFile(pretrained) as archive:
        return any(
            name.endswith('/constants.pkl') for name in archive.namelist())


def _is_state_dict(pretrained: str | None) -> bool:
    """Whether it is a file of named tensors, not big_vision's arrays."""
    return pretrained is not None and Path(pretrained).is_file() \
        and Path(pretrained).suffix not in ('.npz', '.npy')


def _differences(name: str, pretrained: str) -> str:
    """In words: keys missing, keys left over, shapes that differ."""
    import open_clip
    expected = open_clip.create_model(name).state_dict()
    given = open_clip.factory.load_state_dict(pretrained, weights_only=True)
    shapes = [
        f'{key} {tuple(given[key].shape)} instead of '
        f'{tuple(value.shape)}' for key, value in expected.items()
        if key in given and given[key].shape != value.shape
    ]
    parts = {
        'missing keys': [key for key in expected if key not in given],
        'unexpected keys': [key for key in given if key not in expected],
        'other shapes': shapes
    }
    return '; '.join(f'{len(keys)} {kind}: {keys[:SHOWN_KEYS]}' +
                     (' ...' if len(keys) > SHOWN_KEYS else '')
                     for kind, keys in parts.items() if keys)


def _check_names(model: str, pretrained: str | None) -> None:
    import open_clip
    models = open_clip.list_models()
    if model not in models:
        close = difflib.get_close_matches(model, models, n=3)
        hint = f' (did you mean {close}?)' if close else ''
        raise ValueError(f'model={model!r} is not an open_clip model{hint}; '
                         f'expected one of {models}')
    if pretrained is None or Path(pretrained).is_file():
        return
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained not in tags:
        raise ValueError(
            f'pretrained={pretrained!r} is neither a file nor a tag of '
            f'{model}; expected a path or one of {tags}')
