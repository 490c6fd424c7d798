# Licensed under the Apache License, Version 2.0.
"""Mistakes in a config, found before anything is built."""
import copy
import difflib
import glob
import inspect
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import (
    Any,
    NoReturn,
    cast,
)

from mmengine import registry as registries
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import Registry
from mmengine.runner import (
    EpochBasedTrainLoop,
    IterBasedTrainLoop,
    LogProcessor,
    Runner,
    TestLoop,
    ValLoop,
)
from torch.utils.data import DataLoader

from mmdet_clim_cli.mistakes import unexpected_keyword

from .clim_config import PREFIX, add_clim, read_fragment

#: Keys of the whole config that no argument of MMEngine's runner has.
TOP_KEYS = frozenset(
    ('custom_imports', 'find_unused_parameters', 'load_from_skip',
     'model_wrapper_cfg', 'runner_type', 'tta_model', 'tta_pipeline'))
#: Keys that ``--clim`` reads beside those that a fragment has to define.
CLIM_KEYS = frozenset(
    ('clim_branches', 'clim_region_reader', 'clim_source_ratio'))
# What MMEngine takes out of a dict before it calls the class.
COMMON_KEYS = frozenset(('type', '_scope_', '_delete_'))
#: Dicts whose keys are chosen freely.
FREE = frozenset(('branches', 'clim_branches', 'clim_objectives',
                  'custom_keys', 'metainfo', 'objectives'))
# Dicts that have no type, and who reads them.
READERS = {
    'train_dataloader': ((DataLoader, ), ('num_batch_per_epoch', )),
    'val_dataloader': ((DataLoader, ), ('num_batch_per_epoch', )),
    'test_dataloader': ((DataLoader, ), ('num_batch_per_epoch', )),
    'train_cfg': ((EpochBasedTrainLoop, IterBasedTrainLoop), ('by_epoch', )),
    'val_cfg': ((ValLoop, ), ()),
    'test_cfg': ((TestLoop, ), ()),
    'optim_wrapper': ((OptimWrapper, ), ('constructor', 'paramwise_cfg')),
    'log_processor': ((LogProcessor, ), ()),
    'randomness': ((Runner.set_randomness, ), ()),
    'env_cfg':
    ((), ('cudnn_benchmark', 'mp_cfg', 'dist_cfg', 'resource_limit')),
    'auto_scale_lr': ((), ('enable', 'base_batch_size')),
}
# Dicts whose keys someone else may read too: what is nearly one of these is
# misspelt.
USUAL = {
    'env_cfg.mp_cfg':
    frozenset(('mp_start_method', 'opencv_num_threads')),
    'env_cfg.dist_cfg':
    frozenset(('backend', 'timeout')),
    'optim_wrapper.clip_grad':
    frozenset(('max_norm', 'norm_type', 'error_if_nonfinite', 'clip_value')),
    'optim_wrapper.paramwise_cfg':
    frozenset(
        ('custom_keys', 'bias_lr_mult', 'bias_decay_mult', 'norm_decay_mult',
         'flat_decay_mult', 'dwconv_decay_mult', 'dcn_offset_lr_mult',
         'bypass_duplicate', 'decay_rate', 'decay_type', 'num_layers')),
}
# Beside the arguments of a class, what those who build it take out.
ADDED = {'constructor', 'paramwise_cfg', 'priority', 'convert_to_iter_based'}
#: How alike two keys are that are taken for one, from 0 to 1.
ALIKE = 0.8
LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')


def read_config(config: str | Path,
                options: Mapping[str, Any] | None = None,
                clim: str | None = None) -> Config:
    """Read a config as the command line of a tool gives it.

    Args:
        config (str or Path): The file.
        options (Mapping, optional): Of ``--cfg-options``.
        clim (str, optional): Fragment of ``--clim``.

    Returns:
        Config: With the options in it, and CLIM put on it.

    Raises:
        FileNotFoundError: If there is no such file.
        KeyError: If an option is none; see :func:`check_options`.
        ValueError: If the fragment or the config is none for CLIM.
    """
    cfg = Config.fromfile(config)
    if clim is None:
        check_options(cfg, options)
    else:
        check_options(add_clim(cfg, read_fragment(clim)), options, True)
        cfg = add_clim(cfg, read_fragment(clim, options))
    if options:
        cfg.merge_from_dict(dict(options))
    _prompts_of_the_model(cfg)
    return cfg


def _prompts_of_the_model(cfg: Config) -> None:
    """Have the data workers write prompts for the model as it is now.

    ``TokenizePrompts`` repeats settings of the model, of which an option or a
    config that inherits from another one may change either.
    """
    model = cfg.get('model') or {}
    language_model = (model.get('detector') or {}).get('language_model')
    if language_model is None:
        return
    for step in _of_type(cfg.get('train_dataloader'), 'TokenizePrompts'):
        step['language_model'] = copy.deepcopy(language_model)
        for name in set(step['objectives']) & set(model['objectives']):
            step['objectives'][name] = copy.deepcopy(model['objectives'][name])


def _of_type(part: Any, name: str) -> Iterator[dict]:
    """The dicts of a type, whatever its scope, in a part of a config."""
    if isinstance(part, dict):
        if str(part.get('type')).rpartition('.')[2] == name:
            yield part
        part = list(part.values())
    for inner in part if isinstance(part, (list, tuple)) else ():
        yield from _of_type(inner, name)


def check_options(cfg: Config,
                  options: Mapping[str, Any] | None,
                  has_fragment: bool = False) -> None:
    """See that ``--cfg-options`` name keys that something reads.

    A key may be new where the class behind ``type`` takes it as an argument,
    or in a dict whose keys are chosen freely and none of them is almost the
    same. A variable of the config file, which nothing reads when the file has
    been read, is warned of.

    Args:
        cfg (Config): The config, without the options; with ``--clim`` the
            wrapped one.
        options (Mapping, optional): Dotted key to value.
        has_fragment (bool): Whether ``--clim`` gave a fragment, in which
            options of ``clim_*`` names are merged before it is read. In a
            config that is wrapped already, they are variables.

    Raises:
        KeyError: If a key is none; the message has the nearest ones.
    """
    scope = cfg.get('default_scope') or 'mmdet'
    read = set(arguments(Runner)[0]) | TOP_KEYS
    if any(key.startswith(PREFIX) for key in cfg):
        read |= CLIM_KEYS
    options = options or {}
    types = {
        option: kind
        for option, kind in options.items() if option.endswith('.type')
    }
    typed = cfg
    for option, kind in types.items():
        _check_option(cfg, option, kind, scope, read)
        _check_type(cfg, option, kind, scope)
    if types:
        # Another type takes other keys.
        typed = copy.deepcopy(cfg)
        typed.merge_from_dict(types)
    for option, value in options.items():
        if option not in types:
            _check_option(typed, option, value, scope, read)
        first = option.split('.')[0]
        if not (has_fragment and _is_of_fragment(first)
                if first.startswith(PREFIX) else first in read):
            print_log(
                f'--cfg-options {option}: {first} is a variable of the '
                'config file; settings that were computed from it do not '
                'change', 'current', logging.WARNING)


def _is_of_fragment(key: str) -> bool:
    """Whether ``add_clim`` reads this name of a fragment."""
    return key in CLIM_KEYS or key in ('clim_text_encoder',
                                       'clim_objectives') or key.endswith(
                                           ('_dataset', '_objective'))


def _check_option(cfg: Config, option: str, value: Any, scope: str,
                  read: set[str]) -> None:
    node: Any = cfg
    path: list[str] = []
    parts = option.split('.')
    for part in parts:
        if isinstance(node, (list, tuple)):
            if not part.isdigit() or int(part) >= len(node):
                expected = f'a number from 0 to {len(node) - 1}' if node \
                    else f'all of it, as {".".join(path)}=[...]'
                raise KeyError(
                    f'--cfg-options {option}: {".".join(path)} is a list of '
                    f'{len(node)}, expected {expected}, got {part!r}')
            node = node[int(part)]
        elif isinstance(node, (Mapping, Config)):
            if part not in node:
                known = read if node is cfg else _known(node, path, scope)
                _check_new_key(node, path, part, option, known)
            # What the config leaves to defaults has keys, too.
            node = node[part] if part in node else {}
        elif node is None:
            return
        else:
            raise KeyError(f'--cfg-options {option}: {".".join(path)} is '
                           f'{str(node)[:60]!r} and has no keys')
        path.append(part)
    if (node and isinstance(node, Mapping)
            and isinstance(value, (str, int, float))):
        raise KeyError(
            f'--cfg-options {option}: expected one of its keys, '
            f'such as {option}.{next(iter(node))}, or None to remove it, got '
            f'{value!r}')


def _check_type(cfg: Config, option: str, kind: Any, scope: str) -> None:
    """See that a type which takes the place of another is registered."""
    node: Any = cfg
    for part in option.split('.'):
        if isinstance(node, (list, tuple)):
            node = node[int(part)]
        else:
            node = node.get(part) if isinstance(node,
                                                (Mapping, Config)) else None
    if not isinstance(kind, str) or not isinstance(node, str) \
            or find_type(kind, scope) is not None:
        return
    names = {
        name
        for root in _registries() if _get(root, node, scope) is not None
        for registry in _with_children(root) for name in registry.module_dict
    }
    if names:
        name = kind.rpartition('.')[2]
        near = difflib.get_close_matches(name, sorted(names), 3, 0.6)
        hint = f'; did you mean {" or ".join(near)}?' if near else ''
        raise KeyError(
            f'--cfg-options {option}: no imported package registers '
            f'{kind!r}{hint}')


def _known(node: Mapping, path: list[str], scope: str) -> set[str] | None:
    """The keys that whoever reads a dict takes; None if nobody knows."""
    if 'type' in node:
        return _arguments_of_type(node['type'], scope)
    if len(path) == 1 and path[0] in READERS:
        readers, more = READERS[path[0]]
        return set(more).union(*(arguments(of)[0] for of in readers))
    return None


def _check_new_key(node: Mapping, path: list[str], key: str, option: str,
                   known: set[str] | None) -> None:
    """See that a key may be added to a dict of the config."""
    if key in COMMON_KEYS or set(path[-2:]) & FREE:
        return
    usual = USUAL.get('.'.join(path), frozenset())
    own = usual.union(str(name) for name in node)
    if known is not None:
        if key not in known:
            _refuse(option, path, key, own | known)
    elif key not in own and difflib.get_close_matches(key, own, 1, ALIKE):
        _refuse(option, path, key, own)


def _refuse(option: str, path: list[str], key: str,
            known: Iterable[str]) -> NoReturn:
    known = sorted(set(known) - ADDED)
    near = difflib.get_close_matches(key, known, 3, 0.6)
    where = '.'.join(path) or 'the config'
    hint = f'did you mean {" or ".join(near)}?' if near else \
        f'it takes {", ".join(known[:20])}'
    raise KeyError(f'--cfg-options {option}: {where} has no key {key!r}; '
                   f'{hint}')


def _arguments_of_type(kind: Any, scope: str) -> set[str] | None:
    """What a type of the config takes; None if that is not known."""
    found = find_type(kind, scope) if isinstance(kind, str) else kind
    if found is None:
        return None
    names, is_open = arguments(found)
    return None if is_open else set(names) | ADDED


def find_type(name: str, scope: str) -> Callable | None:
    """The class of a name in any registry.

    Args:
        name (str): With its scope or not.
        scope (str): Of names without one.

    Returns:
        Callable or None: None if no registry has it.
    """
    found = (_get(root, name, scope) for root in _registries())
    return next((kind for kind in found if kind is not None), None)


def _registries() -> list[Registry]:
    """MMEngine's, whose children are those of other packages."""
    return [r for r in vars(registries).values() if isinstance(r, Registry)]


def _with_children(root: Registry) -> Iterator[Registry]:
    yield root
    for child in root.children.values():
        yield from _with_children(child)


def _get(root: Registry, name: str, scope: str) -> Callable | None:
    return root.get(name if '.' in name else f'{scope}.{name}')


def arguments(callable_: Callable) -> tuple[list[str], bool]:
    """Names of the arguments that a class or function takes.

    Args:
        callable_ (Callable): Of a class, those of its bases count where it
            hands on ``**kwargs``.

    Returns:
        tuple[list[str], bool]: The names, and whether it takes others too.
    """
    functions = [callable_]
    if inspect.isclass(callable_):
        functions = [
            vars(base)['__init__'] for base in callable_.__mro__
            if base is not object and '__init__' in vars(base)
        ]
    names: list[str] = []
    for function in functions:
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return names, True
        names += [
            p.name for p in parameters
            if p.kind in (p.POSITIONAL_OR_KEYWORD,
                          p.KEYWORD_ONLY) and p.name != 'self'
        ]
        if all(p.kind != p.VAR_KEYWORD for p in parameters):
            return names, False
    return names, bool(functions)


def check_parts(cfg: Config, config: str | Path, keys: Sequence[str]) -> None:
    """See that a config has what a tool runs.

    Args:
        cfg (Config): The whole config.
        config (str or Path): Its file, for the error.
        keys (Sequence[str]): Keys of the whole config.

    Raises:
        KeyError: If some are missing, or None as in configs that only find.
    """
    missing = [key for key in keys if cfg.get(key) is None]
    if missing:
        raise KeyError(f'{config}: expected a config with {", ".join(keys)}, '
                       f'got no {", ".join(missing)}')


def check_files(cfg: Config, splits: Sequence[str],
                weights: str | None) -> None:
    """See that the files that a run needs are there.

    Looked for are annotations and folders of images of the data sets, what
    evaluators read, the checkpoint, pretrained weights, and the files and
    packages of text encoders. What is fetched over the network or from a
    storage is left to those who fetch it.

    Args:
        cfg (Config): The whole config.
        splits (Sequence[str]): Which of train, val and test are run.
        weights (str, optional): The checkpoint that is loaded.

    Raises:
        FileNotFoundError: If some are not there; the message names the keys
            of the config.
    """
    missing = []
    if weights is not None and _is_missing(weights):
        key = 'load_from' if weights == cfg.get('load_from') else 'checkpoint'
        missing.append(f'{key}: {weights}')
    for split in splits:
        loop = cfg.get(f'{split}_cfg') or {}
        if str(loop.get('type')).rpartition('.')[2] == 'DetectionSetsLoop':
            # It says of each data set whether it is there.
            missing += _missing_below('', loop.get('root'),
                                      f'{split}_cfg.root')
            continue
        for part in ('dataloader', 'evaluator'):
            key = f'{split}_{part}'
            if cfg.get(key) is not None:
                missing += _missing_data(cfg[key], key, cfg)
    missing += _missing_weights(cfg.get('model'), 'model')
    if missing:
        missing = list(dict.fromkeys(missing))
        more = f' and {len(missing) - 6} more' if len(missing) > 6 else ''
        raise FileNotFoundError(
            f'{"; ".join(missing[:6])}{more}: not found from '
            f'{Path.cwd()}')


def _is_missing(path: str | Path) -> bool:
    """Whether a local path, a pattern of shards too, leads nowhere."""
    path = str(path)
    if '://' in path or path.startswith('s3:'):
        return False
    if any(sign in path for sign in '*?'):
        return not glob.glob(path)
    return not Path(path).exists()


def _walk(node: Any, path: str) -> Iterator[tuple[str, Mapping]]:
    """All dicts in a part of a config, with their places."""
    if isinstance(node, Mapping):
        yield path, node
        for key, value in node.items():
            yield from _walk(value, f'{path}.{key}')
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            yield from _walk(value, f'{path}.{index}')


def _missing_data(part: Any, path: str, cfg: Config) -> list[str]:
    """Annotations and folders of images that are not there."""
    missing = []
    for place, node in _walk(part, path):
        if _reads_elsewhere(node):
            continue
        root = node.get('data_root') or ''
        files = node.get('ann_file') or ()
        for file in [files] if isinstance(files, (str, Path)) else files:
            missing += _missing_below(root, file, f'{place}.ann_file')
        prefixes = node.get('data_prefix') or {}
        if 'ann_file' not in node or not isinstance(prefixes, Mapping):
            continue
        for key, prefix in prefixes.items():
            if isinstance(prefix, str) and (prefix or root):
                missing += _missing_below(root, prefix,
                                          f'{place}.data_prefix.{key}')
    return missing


def _reads_elsewhere(node: Mapping) -> bool:
    """Whether a data set reads from a storage, not from the disk."""
    backend = node.get('backend_args') or node.get('file_client_args')
    return isinstance(
        backend,
        Mapping) and backend.get('backend') not in (None, 'local', 'disk')


def _missing_below(root: Any, name: Any, place: str) -> list[str]:
    if not isinstance(name, (str, Path)) or '://' in str(root):
        return []
    path = Path(str(root), str(name)) if '://' not in str(name) else name
    return [f'{place}: {path}'] if _is_missing(path) else []


def _missing_weights(model: Any, path: str) -> list[str]:
    """Pretrained weights, and what text encoders read."""
    from mmdet_clim.models.backbones.timm_backbone import find_weight_file
    from mmdet_clim.models.text_encoders.sentence_encoder import find_weights
    missing = []
    for place, node in _walk(model, path):
        kind = node.get('type')
        kind = kind.rpartition('.')[2] if isinstance(kind, str) else ''
        for key in {
                'Pretrained': ['checkpoint'],
                'PrecomputedTextEncoder': ['file'],
                'SentenceTextEncoder': ['path'],
                'TimmBackbone': ['checkpoint'],
        }.get(kind, []):
            name = node.get(key)
            if isinstance(name, str) and _is_missing(name):
                missing.append(f'{place}.{key}: {name}')
        if isinstance(node.get('package'), str):
            find = find_weight_file if kind == 'TimmBackbone' else find_weights
            try:
                find(node['package'])
            except FileNotFoundError as error:
                missing.append(f'{place}.package: {error}')
        if set(node) == {'dataset', 'ann_file'}:  # a vocabulary
            missing += _missing_below('', node['ann_file'],
                                      f'{place}.ann_file')
        name = node.get('name')
        if kind.startswith('Bert') and isinstance(name, str) and re.match(
                r'[./~]', name) and _is_missing(name):
            missing.append(f'{place}.name: {name}')
        name = node.get('pretrained')
        if isinstance(name, str) and Path(name).suffix in (
                '.pt', '.pth', '.bin', '.safetensors') and _is_missing(name):
            missing.append(f'{place}.pretrained: {name}')
    return missing


@contextmanager
def named_in_config(cfg: Config) -> Iterator[None]:
    """Have errors of unknown arguments name their place in the config.

    Args:
        cfg (Config): The whole config that is built from.

    Raises:
        TypeError: In the place of Python's, which names the class alone.
    """
    try:
        yield
    except TypeError as error:
        found = unexpected_keyword(error)
        message = found and _place_of(cfg, *found)
        if not message:
            raise
        raise TypeError(message) from error


def _place_of(cfg: Config, kind: str, key: str) -> str | None:
    """Where a config has an argument that a class does not take."""
    scope = cfg.get('default_scope') or 'mmdet'
    for place, node in _walk(cfg._cfg_dict, ''):
        name = node.get('type')
        found = find_type(name, scope) if isinstance(name, str) else name
        bases = getattr(found, '__mro__', (found, ))
        if key in node and kind in [
                getattr(base, '__name__', '') for base in bases
        ]:
            known = arguments(cast(Callable, found))[0]
            near = difflib.get_close_matches(key, known, 3, 0.6)
            hint = f'did you mean {" or ".join(near)}?' if near else \
                f'it takes {", ".join(sorted(known)[:20])}'
            return f'{place[1:]}: {kind} takes no {key!r}; {hint}'
    return None


def absolute_load_from(cfg: Config) -> None:
    """Have ``load_from`` name its file from every folder.

    The config is written to the work dir, from where it is to begin with the
    same weights.

    Args:
        cfg (Config): Is changed.
    """
    file = cfg.get('load_from')
    if isinstance(file, str) and '://' not in file:
        cfg.load_from = str(Path(file).expanduser().absolute())
