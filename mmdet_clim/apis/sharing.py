# Licensed under the Apache License, Version 2.0.
"""A detector as a folder of data, here or on the Hugging Face Hub.

=====================  ====================================================
``config.py``          the plain detector and its test pipeline, as literals
``model.safetensors``  its weights
``vocabulary.json``    its classes: ``names`` and ``base_names``
``thresholds.json``    least scores by class, where a fine-tuning chose some
``files/``             files that the config names, such as embeddings
``README.md``          the model card
=====================  ====================================================

Nothing of such a folder is run when it is loaded: the config is read as that
of a checkpoint (:mod:`~mmdet_clim.engine.checkpoint_config`).
"""
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config

from mmdet_clim.datasets.json_files import read_json
from mmdet_clim.datasets.preparation.files import write_json
from mmdet_clim.datasets.vocabulary import Vocabulary, build_vocabulary
from mmdet_clim.engine.checkpoint_config import (
    checkpoint_config,
    read_literals,
)
from mmdet_clim.engine.config_checks import check_parts
from mmdet_clim.engine.safetensors_files import save_safetensors
from mmdet_clim.evaluation.class_thresholds import (
    THRESHOLDS,
    thresholds_beside,
)

from .inferencer import CLIMInferencer, config_of
from .model_card import model_card
from .vocabulary import TakesVocabulary, reads_texts

CONFIG, WEIGHTS, VOCABULARY = 'config.py', 'model.safetensors', \
    'vocabulary.json'
CARD, FILES = 'README.md', 'files'
#: What the address of a repository on the Hub begins with.
HUB = 'hf://'


def save_pretrained(folder: str | Path,
                    checkpoint: str | Path,
                    config: str | Path | Config | None = None,
                    vocabulary: Any = None,
                    name: str | None = None,
                    licence: str | None = None) -> Path:
    """Write a detector as a folder that :func:`from_pretrained` loads.

    Args:
        folder (str or Path): Must not exist, or be empty.
        checkpoint (str or Path): Of a training; a wrapped detector leaves the
            plain one.
        config (str, Path or Config, optional): Of the detector, wrapped or
            not. None takes the one in the checkpoint.
        vocabulary (optional): The classes; anything that
            :func:`~mmdet_clim.datasets.build_vocabulary` reads. None keeps
            those of the detector.
        name (str, optional): Of the model, in its card. Defaults to the name
            of the folder.
        licence (str, optional): An identifier that the Hub knows, such as
            ``apache-2.0``. None leaves it to be filled in.

    Returns:
        Path: The folder.

    Raises:
        FileExistsError: If the folder holds something.
        ValueError: If the config is more than data, or the weights are not
            those of the detector.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f'folder: {folder} exists, expected a new one')
    cfg = config_of(config, checkpoint)
    # mmdet makes another loader of the pipeline's.
    detector = _portable(cfg)
    find = CLIMInferencer(
        cfg,
        str(checkpoint),
        vocabulary=vocabulary,
        device='cpu',
        show_progress=False)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(
            dir=folder.parent, prefix=f'{folder.name}.') as made:
        beside = Path(made, 'model')
        beside.mkdir()
        _write_config(detector, beside)
        found = _vocabulary_of(find)
        write_json(
            beside / VOCABULARY,
            dict(
                names=list(found.names),
                base_names=[
                    n for n, is_base in zip(found.names, found.is_base)
                    if is_base
                ]),
            indent=1)
        save_safetensors(
            dict(
                state_dict=find.model.cpu().state_dict(),
                meta=dict(dataset_meta=dict(classes=list(found.names)))),
            beside / WEIGHTS)
        if thresholds_beside(checkpoint):
            shutil.copyfile(
                Path(checkpoint).with_name(THRESHOLDS), beside / THRESHOLDS)
        source = config if isinstance(config, (str, Path)) else None
        (beside / CARD).write_text(
            model_card(name or folder.name,
                       type(find.model).__name__, found.names, source,
                       licence),
            encoding='utf-8')
        # As a stranger will: what does not load is not left behind.
        _config_from(beside)
        if folder.exists():
            folder.rmdir()
        beside.rename(folder)
    return folder


def from_pretrained(source: str | Path,
                    vocabulary: Any = None,
                    device: str | None = None,
                    revision: str | None = None,
                    token: str | bool | None = None,
                    **kwargs: Any) -> CLIMInferencer:
    """Load a detector from a folder, or from the Hugging Face Hub.

    Args:
        source (str or Path): A folder of :func:`save_pretrained`, or
            ``hf://USER/NAME``, which is downloaded once into the Hub's cache.
        vocabulary (optional): The classes, instead of the folder's.
        device (str, optional): None takes an accelerator if there is one.
        revision (str, optional): Branch, tag or commit on the Hub.
        token (str or bool, optional): Of the Hub; None takes the one of
            ``hf auth login``.
        **kwargs: The other arguments of
            :class:`~mmdet_clim.apis.CLIMInferencer`.

    Returns:
        CLIMInferencer: Which finds the classes in images.

    Raises:
        FileNotFoundError: If there is no such folder, or a file of it is
            missing.
        ValueError: If the config is more than data.

    Example:
        >>> find = from_pretrained('street_detector')
        >>> find('street.jpg')['predictions']
    """
    folder = _folder_of(source, revision, token)
    for name in (CONFIG, WEIGHTS, VOCABULARY):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f'source: {source} has no {name}, expected a folder of '
                'save_pretrained')
    find = CLIMInferencer(
        _config_from(folder), str(folder / WEIGHTS), device=device, **kwargs)
    if vocabulary is None and takes_names(find):
        vocabulary = read_json(folder / VOCABULARY)
    if vocabulary is not None:
        find.set_vocabulary(vocabulary)
    return find


def push_to_hub(folder: str | Path,
                repository: str,
                private: bool = True,
                token: str | bool | None = None) -> str:
    """Upload a folder of :func:`save_pretrained` to the Hugging Face Hub.

    Args:
        folder (str or Path): The folder; it is checked first.
        repository (str): ``USER/NAME``; it is made where it is missing.
        private (bool): Whether a new repository is seen by its owner alone.
        token (str or bool, optional): With the right to write; None takes the
            one of ``hf auth login``.

    Returns:
        str: The address of the upload.

    Raises:
        FileNotFoundError: If the folder is none of :func:`save_pretrained`.
    """
    from huggingface_hub import HfApi
    folder = Path(folder)
    for name in (CONFIG, WEIGHTS, VOCABULARY, CARD):
        if not (folder / name).is_file():
            raise FileNotFoundError(f'folder: {folder} has no {name}')
    _config_from(folder)
    api = HfApi(token=token)
    api.create_repo(repository, private=private, exist_ok=True)
    return str(
        api.upload_folder(
            repo_id=repository,
            folder_path=str(folder),
            allow_patterns=[
                CONFIG, WEIGHTS, VOCABULARY, THRESHOLDS, CARD, f'{FILES}/*'
            ],
            commit_message='Upload a detector of mmdet_clim'))


def load_detector(config: str | Path | None, checkpoint: str,
                  **kwargs: Any) -> CLIMInferencer:
    """Load what a command line names as ``--config`` and ``--checkpoint``.

    Args:
        config (str or Path, optional): Of the detector.
        checkpoint (str): A file of weights, a folder of
            :func:`save_pretrained`, or ``hf://USER/NAME``.
        **kwargs: The other arguments of
            :class:`~mmdet_clim.apis.CLIMInferencer`.

    Raises:
        ValueError: If there is a config beside a folder, which has its own.
    """
    if not (checkpoint.startswith(HUB) or Path(checkpoint).is_dir()):
        return CLIMInferencer(config, checkpoint, **kwargs)
    if config is not None:
        raise ValueError(f'--config: expected none for {checkpoint}, which '
                         'contains its own')
    return from_pretrained(checkpoint, **kwargs)


def takes_names(find: CLIMInferencer) -> bool:
    """Whether the classes of a detector can be replaced.

    Args:
        find (CLIMInferencer): With the detector.
    """
    return reads_texts(find.model) or find.classifies_by_text()


def _folder_of(source: str | Path, revision: str | None,
               token: str | bool | None) -> Path:
    if not str(source).startswith(HUB):
        if not Path(source).is_dir():
            raise FileNotFoundError(
                f'source: {source} is not a folder; for a repository on the '
                f'Hub, expected {HUB}USER/NAME')
        return Path(source)
    from huggingface_hub import snapshot_download
    return Path(
        snapshot_download(
            str(source)[len(HUB):],
            revision=revision,
            token=token,
            # Whatever else is there is neither fetched nor read.
            allow_patterns=[
                CONFIG, WEIGHTS, VOCABULARY, THRESHOLDS, f'{FILES}/*'
            ]))


def _vocabulary_of(find: CLIMInferencer) -> Vocabulary:
    for part in find.model.modules():
        if isinstance(part, TakesVocabulary):
            return part.vocabulary
    names = find.model.dataset_meta.get('classes') or ('object', )
    return build_vocabulary(list(names))


def _portable(cfg: Config) -> dict[str, Any]:
    """The detector and its test pipeline; nothing of the data."""
    check_parts(cfg, 'config', ('model', 'test_dataloader'))
    loader = cfg.test_dataloader
    kept = dict(
        default_scope=cfg.get('default_scope', 'mmdet'),
        model=cfg.model.get('detector', cfg.model),
        test_dataloader=dict(dataset=dict(pipeline=loader.dataset.pipeline)))
    if 'collate_fn' in loader:
        kept['test_dataloader']['collate_fn'] = loader.collate_fn
    return Config(kept).to_dict()


def _write_config(kept: dict[str, Any], folder: Path) -> None:
    kept['model'] = _replaced(kept['model'], _Copies(folder))
    (folder / CONFIG).write_text(Config(kept).pretty_text, encoding='utf-8')


class _Copies:
    """Copies files and folders that a config names, and names the copies.

    Args:
        folder (Path): That gets them, below ``files/``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / FILES
        self.names: dict[str, str] = {}

    def __call__(self, value: str) -> str:
        # A word without either may be the name of a folder by chance.
        if '/' not in value and '.' not in value:
            return value
        path = Path(value)
        if not path.exists() or value.strip('./') == '':
            return value
        if value not in self.names:
            name = path.name
            if (self.folder / name).exists():
                name = f'{len(self.names)}_{name}'
            self.folder.mkdir(exist_ok=True)
            if path.is_dir():
                shutil.copytree(path, self.folder / name)
            else:
                shutil.copyfile(path, self.folder / name)
            self.names[value] = f'{FILES}/{name}'
        return self.names[value]


def _replaced(value: Any, replace: Callable[[str], str]) -> Any:
    """A config with its strings replaced, but for types."""
    if isinstance(value, dict):
        return {
            key: child if key == 'type' else _replaced(child, replace)
            for key, child in value.items() if key != 'init_cfg'
        }
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(child, replace) for child in value)
    return replace(value) if isinstance(value, str) else value


def _config_from(folder: Path) -> Config:
    """Read the config as data, with its own files where they are now."""
    file = folder / CONFIG

    def place(value: str) -> str:
        if not value.startswith(f'{FILES}/'):
            return value
        if '..' in Path(value).parts or not (folder / value).exists():
            raise ValueError(f'{file}: {value!r}: expected a file of the '
                             'folder')
        return str((folder / value).absolute())

    try:
        values = read_literals(file.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{file}: it is read as data, and {error}') from None
    lines: list[str] = [
        f'{key} = {_replaced(value, place)!r}'
        for key, value in values.items()
    ]
    cfg = checkpoint_config(dict(meta=dict(cfg='\n'.join(lines))), file)
    cfg.visualizer = dict(type='mmdet.DetLocalVisualizer', name='visualizer')
    return cfg
