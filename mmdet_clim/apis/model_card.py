# Licensed under the Apache License, Version 2.0.
"""The model card of a detector, with what its metafile says."""
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from mmdet_clim.version import __version__

#: Of a long vocabulary, how many names the card shows.
SHOWN = 20
MIM = Path(__file__).resolve().parents[1] / '.mim'
LOADING = """```python
from mmdet_clim.apis import from_pretrained

find = from_pretrained('hf://USER/NAME')      # or this folder
find('street.jpg')['predictions']
find('street.jpg', vocabulary=['cat', 'fire truck'])
```"""


def metafile_entry(config: str | Path) -> dict[str, Any] | None:
    """What the metafiles of this package say of a config.

    Args:
        config (str or Path): Its file; the name counts.

    Returns:
        dict or None: ``Name``, ``Config``, ``Metadata``, ``Results``; None
        where the config is not one of the package.
    """
    index = yaml.safe_load((MIM / 'model-index.yml').read_text('utf-8'))
    for file in index['Import']:
        content = yaml.safe_load((MIM / file).read_text('utf-8'))
        for entry in content['Models']:
            if Path(entry['Config']).name == Path(config).name:
                return entry
    return None


def model_card(name: str,
               detector: str,
               classes: Sequence[str],
               config: str | Path | None = None,
               licence: str | None = None) -> str:
    """Write the card.

    Args:
        name (str): Of the model.
        detector (str): Class of the detector.
        classes (Sequence[str]): Its vocabulary.
        config (str or Path, optional): The file that it was trained with. If
            it is one of this package, the numbers of its metafile follow.
        licence (str, optional): Identifier of the weights' licence.

    Returns:
        str: Markdown with the YAML head that the Hugging Face Hub reads.
    """
    head: dict[str, Any] = dict(
        library_name='mmdet_clim',
        pipeline_tag='zero-shot-object-detection',
        tags=['object-detection', 'open-vocabulary', 'clim', 'mmdetection'])
    if licence:
        head = dict(license=licence, **head)
    entry = None if config is None else metafile_entry(config)
    shown = ', '.join(f'`{word}`' for word in classes[:SHOWN])
    if len(classes) > SHOWN:
        shown += f' and {len(classes) - SHOWN} more (`vocabulary.json`)'
    parts = [
        f'# {name}',
        f'A {detector} of [MMDetection](https://github.com/open-mmlab/'
        f'mmdetection), saved by mmdet_clim {__version__} (CLIM, '
        '[arXiv 2312.11376](https://arxiv.org/abs/2312.11376)).',
        f'## Classes\n\n{len(classes)}: {shown}',
        '## Use\n\n`pip install mmdet_clim`, in addition to mmcv, mmengine '
        f'and mmdet, then\n\n{LOADING}\n\nLoading does not run any code in '
        'the files: the config is read as data.',
        _numbers(entry),
        '## Missing\n\nWhat it was trained on, how accurate this file is, and '
        'whom it may harm. Whoever shares it should describe that here.' +
        ('' if licence else ' It has no licence yet; add `license:` to the '
         'header of this file.'),
    ]
    return ('---\n' + yaml.safe_dump(head, sort_keys=False) + '---\n\n' +
            '\n\n'.join(part for part in parts if part) + '\n')


def _numbers(entry: dict[str, Any] | None) -> str:
    if entry is None:
        return ''
    lines: list[str] = []
    for result in entry.get('Results', []):
        lines += [
            f'| {result["Dataset"]} | {key} | {value} |'
            for key, value in result['Metrics'].items()
        ]
    text = f'## Config\n\n`{entry["Config"]}` of mmdet_clim'
    trained = entry.get('Metadata', {}).get('Training Data')
    if trained:
        named = trained if isinstance(trained, str) else ', '.join(trained)
        text += f', which trains on {named}'
    text += '.'
    if lines:
        text += (' These results are of the config, not of this file; '
                 '*published* ones are stated in a paper, *measured* ones '
                 'were measured by mmdet_clim:\n\n| data | metric | |\n'
                 '|---|---|---|\n' + '\n'.join(lines))
    return text
