# Licensed under the Apache License, Version 2.0.
"""Checkpoints as safetensors, a form that can hold nothing but data."""
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mmdet_clim.files import atomic_path

SUFFIX = '.safetensors'
# Entries of ``meta`` that inference asks for.
META = ('cfg', 'dataset_meta', 'left_out')


def save_safetensors(checkpoint: Mapping[str, Any], path: Path) -> None:
    """Write the weights and the ``meta`` of a checkpoint.

    Args:
        checkpoint (Mapping): ``state_dict``, and ``meta`` with what JSON can
            hold.
        path (Path): It never holds half of a file.
    """
    meta = checkpoint.get('meta', {})
    texts = {key: json.dumps(meta[key]) for key in META if key in meta}
    # Weights that share memory are refused.
    weights = {
        name: value.detach().clone().contiguous()
        for name, value in checkpoint['state_dict'].items()
    }
    # Its own way to a file leaves one that only its owner can read.
    content = save(weights, dict(texts, format='pt'))
    with atomic_path(path) as beside:
        beside.write_bytes(content)


def read_safetensors(path: str | Path) -> dict[str, Any]:
    """Read what :func:`save_safetensors` or another program wrote.

    Args:
        path (str or Path): The file.

    Returns:
        dict: ``state_dict`` on the CPU, and ``meta``.

    Raises:
        ValueError: If it is no such file.
    """
    try:
        with safe_open(path, 'pt', device='cpu') as file:
            weights = {name: file.get_tensor(name) for name in file.keys()}
            texts = file.metadata() or {}
        meta = {key: json.loads(texts[key]) for key in META if key in texts}
    except (SafetensorError, ValueError, RecursionError) as error:
        raise ValueError(f'checkpoint: {path}: expected safetensors, got '
                         f'{str(error).splitlines()[0]}') from error
    return dict(state_dict=weights, meta=meta)
