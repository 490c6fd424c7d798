# Licensed under the Apache License, Version 2.0.
"""Detectors and data sets by name, and where they are published."""
import difflib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import yaml

# OpenMMLab and torch.hub end a file's name with the start of its SHA-256.
HASHED = re.compile(r'-([0-9a-f]{8,64})\.(?:pth|pt|pkl)$')
DETIC = 'https://dl.fbaipublicfiles.com/detic/'
COCO = 'http://images.cocodataset.org/'
LVIS = ('https://s3-us-west-2.amazonaws.com/dl.fbaipublicfiles.com/LVIS/'
        'lvis_v1_')
CC3M = """\
CC3M's list has to be fetched in a browser, as its terms are to be accepted:
    https://ai.google.com/research/ConceptualCaptions/download
It is Train_GCC-training.tsv, 3.3 million lines of a caption, a tab and an
address. Then, with `pip install img2dataset`:
    (printf 'caption\\turl\\n'; cat Train_GCC-training.tsv) > cc3m.tsv
    img2dataset --url_list cc3m.tsv --input_format tsv --url_col url \\
        --caption_col caption --output_format webdataset \\
        --output_folder {folder} --image_size 512 --resize_mode no \\
        --processes_count 16 --thread_count 64
and tools/datasets/prepare_cc3m.py --shards '{folder}/*.tar' ..."""

LLMDET = """\
LLMDet's detectors are MM-Grounding-DINOs. Their weights, such as tiny.pth and
large.pth, are on the Hugging Face Hub (`pip install huggingface_hub`):
    hf download fushh7/LLMDet tiny.pth --local-dir {folder}
    python tools/finetune.py --checkpoint {folder}/tiny.pth --config \\
        mmdet::mm_grounding_dino/grounding_dino_swin-t_pretrain_obj365.py ...
The config of large.pth is grounding_dino_swin-l_pretrain_all.py. Weights of
the large language model that they were trained with are counted in the log
and not used."""


@dataclass(frozen=True)
class Published:
    """Something to download.

    Args:
        name (str): What it is asked for by.
        urls (tuple[str]): Its files.
        licence (str): Of the files.
        folder (str): Below the output folder; archives are unpacked there.
        config (Path, optional): Of a detector, where it is installed.
        advice (str): Instead of files: what to do. ``{folder}`` stands for
            the output folder.
    """

    name: str
    urls: tuple[str, ...]
    licence: str
    folder: str = ''
    config: Path | None = None
    advice: str = ''

    def digest(self, url: str) -> str | None:
        """What is published of a file's SHA-256, if anything is.

        Args:
            url (str): One of ``urls``.
        """
        found = HASHED.search(url)
        return found and found[1]


DATASETS: dict[str, Published] = {
    found.name: found
    for found in (
        Published(
            'coco', (f'{COCO}annotations/annotations_trainval2017.zip',
                     f'{COCO}zips/val2017.zip', f'{COCO}zips/train2017.zip'),
            'annotations CC BY 4.0; each image has a licence of its own',
            'coco'),
        Published('coco-annotations', (
            f'{COCO}annotations/annotations_trainval2017.zip',
        ), 'CC BY 4.0 (boxes, masks and captions)', 'coco'),
        Published('lvis', (
            f'{LVIS}train.json.zip', f'{LVIS}val.json.zip'
        ), 'CC BY 4.0; the images are those of COCO', 'lvis/annotations'),
        Published(
            'cc3m', (), 'free for any purpose, with acknowledgement of '
            "Google; each image is its owner's", 'cc3m', None, CC3M),
    )
}
# Detectors that mmdet has no metafile of; those of Detic are converted by
# tools/checkpoints/convert_published.py.
OTHERS = {
    found.name: found
    for found in (Published('llmdet', (), 'Apache-2.0', advice=LLMDET), *(
        Published(name, (f'{DETIC}{file}', ), 'Apache-2.0') for name, file in (
            ('detic-ov-coco-boxes', 'BoxSup_OVCOCO_CLIP_R50_1x.pth'),
            ('detic-ov-coco', 'Detic_OVCOCO_CLIP_R50_1x_max-size_caption.pth'),
            ('detic-ov-lvis',
             'Detic_LbaseI_CLIP_R5021k_640b64_4x_ft4x_max-size.pth'),
            ('detic-swin-b',
             'Detic_LCOCOI21k_CLIP_SwinB_896b32_4x_ft4x_max-size.pth'))))
}


def find_published(name: str) -> Published:
    """What has a name.

    Args:
        name (str): Of a data set or detector: those of this module, or any
            config of the installed mmdet that has published weights.

    Raises:
        KeyError: If there is none; the message has the nearest names.
    """
    name = Path(name).stem if name.endswith('.py') else name
    for known in (DATASETS, OTHERS):
        if name in known:
            return known[name]
    detectors = _detectors()
    if name in detectors:
        return detectors[name]
    names = [*DATASETS, *OTHERS, *detectors]
    near = difflib.get_close_matches(name, names, 4, .5)
    raise KeyError(f'{name}: expected one of {", ".join(DATASETS)}, '
                   f'{", ".join(OTHERS)} or a config of mmdet with '
                   f'published weights{", such as " if near else ""}'
                   f'{", ".join(near)}')


def names_with(word: str) -> list[str]:
    """Names that have a word in them.

    Args:
        word (str): Capitals do not count; of an empty one, all names.
    """
    names = [*DATASETS, *OTHERS, *_detectors()]
    return [name for name in names if word.lower() in name.lower()]


@lru_cache(maxsize=None)
def _detectors() -> dict[str, Published]:
    """By name; reading the metafiles takes seconds."""
    return dict(_of_mmdet())


def _of_mmdet() -> Iterator[tuple[str, Published]]:
    """The models of the metafiles that mmdet is installed with."""
    # Not imported, which takes ten seconds.
    spec = find_spec('mmdet')
    if spec is None or spec.origin is None:
        return
    package = Path(spec.origin).parent
    # Of a source tree, they are beside the package.
    root = next((place for place in (package / '.mim', package.parent)
                 if (place / 'model-index.yml').is_file()), None)
    if root is None:
        return
    index = yaml.safe_load((root / 'model-index.yml').read_text())
    for file in index['Import']:
        content = yaml.safe_load((root / file).read_text(encoding='utf-8'))
        for model in _models(content):
            weights, config = model.get('Weights'), root / model['Config']
            if not weights:
                continue
            name = config.stem
            yield name, Published(
                name, (weights, ), 'Apache-2.0 (MMDetection)', config=config)


def _models(content) -> Sequence[dict]:
    """The models of a metafile, in both of its forms."""
    models = content.get('Models', []) if isinstance(content,
                                                     dict) else content
    return [model for model in models if model.get('Config')]
