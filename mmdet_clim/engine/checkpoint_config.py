# Licensed under the Apache License, Version 2.0.
"""The config that a checkpoint holds, read as data.

MMEngine keeps the text of a training's config in its checkpoints and runs it
as Python when it reads it. A checkpoint may come from anywhere, so here that
text is parsed, and what it would have MMEngine import, run or fetch is
refused.
"""
import ast
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from mmengine.config import Config
from mmengine.registry import Registry

from mmdet_clim.datasets.vocabulary import DATASET_NAME

#: What describes a detector and how its images are read.
KEYS = ('model', 'test_dataloader')
#: Whose components such a config may use.
SCOPES = ('mmengine', 'mmdet', 'mmdet_clim')
_REGISTRIES = ('model', 'task util', 'transform', 'dataset', 'data sampler',
               'function')
# Types that MMCV finds in its own modules, some of them by eval().
_OPERATORS = frozenset({
    'nms', 'soft_nms', 'nms_match', 'nms_rotated', 'RoIAlign', 'RoIPool',
    'RoIAlignRotated', 'DeformRoIPool', 'ModulatedDeformRoIPool'
})
# Of a text; that of the largest shipped config is 30 KB.
_MAX_LENGTH = 4_000_000
_ADDRESS = re.compile(r'\s*(hf[-_]hub:|[a-z][a-z0-9+.-]*:(//|s3:))', re.I)
# Names of models that transformers looks for on its hub where they are no
# folder, and weights that are downloaded where they are no file.
_FOLDERS = ('lang_model_name', 'tokenizer_name')
_WEIGHTS = ('pretrained', 'checkpoint', 'checkpoint_path', 'teacher_ckpt')
# Names that are looked up in a registry, which imports what it does not know.
_LOOKED_UP = ('collate_fn', 'dataset')
_LANGUAGE_MODELS = ('BertModel', 'BertLanguageModel')
# mmdet runs the first by eval(), and the second is the path of a config.
_EVALUATED = ('warp_mode', 'teacher_config')


def checkpoint_config(checkpoint: Mapping,
                      source: str | Path,
                      keys: Sequence[str] = KEYS) -> Config:
    """The config of a checkpoint, of literals, ``dict(...)`` and lists alone.

    ``custom_imports`` and whatever else ``keys`` does not name is left out.
    ``init_cfg`` is too: the weights are in the checkpoint.

    Args:
        checkpoint (Mapping): What was read of the file.
        source (str or Path): The file, for errors.
        keys (Sequence[str]): The outermost names that are wanted.

    Returns:
        Config: ``default_scope`` and those of ``keys`` that it has.

    Raises:
        ValueError: If it holds no config, or one that is more than data,
            names a type of another package, or would have something
            downloaded. The message says to give ``--config``.
    """
    meta = checkpoint.get('meta')
    text = meta.get('cfg') if isinstance(meta, Mapping) else None
    if not isinstance(text, str):
        raise ValueError(f'{source} contains no config: give its --config')
    try:
        values = read_literals(text)
        found = {key: values[key] for key in keys if key in values}
        for key, value in found.items():
            if not isinstance(value, dict):
                raise _Refused(f'{key} is of type {type(value).__name__}, '
                               'expected a dict')
        found['default_scope'] = values.get('default_scope') or 'mmdet'
        return Config(_Checker(found['default_scope']).checked(found, ''))
    except _Refused as error:
        raise ValueError(
            f'{source}: its config is read as data, and {error}. If you trust '
            'where it comes from, give the config file as --config '
            '(docs/security.md)') from None


class _Refused(ValueError):
    """What is not taken from the config of a checkpoint."""


def read_literals(text: str) -> dict[str, Any]:
    """The assignments of a text in the form of MMEngine's ``pretty_text``.

    Args:
        text (str): Lines of ``name = value``; a value is a literal, a list, a
            tuple, a dict, or ``dict(...)``. Nothing of it is run.

    Returns:
        dict: Value by name.

    Raises:
        ValueError: If there is anything else.
    """
    if len(text) > _MAX_LENGTH:
        raise _Refused(f'has {len(text)} characters, expected at most '
                       f'{_MAX_LENGTH}')
    try:
        values = {}
        for line in ast.parse(text).body:
            if not (isinstance(line, ast.Assign) and len(line.targets) == 1
                    and isinstance(line.targets[0], ast.Name)):
                raise _not_data(line)
            values[line.targets[0].id] = _value(line.value)
        return values
    except _Refused:
        raise
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise _Refused('it cannot be parsed '
                       f'({type(error).__name__}: {error})') from None


def _value(node: ast.expr) -> Any:
    """The value of a literal expression."""
    if isinstance(node, ast.Constant) and (node.value is None or isinstance(
            node.value, (bool, int, float, str))):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) \
            and isinstance(node.operand, ast.Constant) \
            and type(node.operand.value) in (int, float):
        return -cast(float, node.operand.value)
    if isinstance(node, (ast.List, ast.Tuple)):
        values = [_value(child) for child in node.elts]
        return values if isinstance(node, ast.List) else tuple(values)
    if isinstance(node, ast.Dict):
        return {
            _key(key, node): _value(value)
            for key, value in zip(node.keys, node.values)
        }
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) \
            and node.func.id == 'dict' and len(node.args) <= 1 \
            and all(isinstance(given, ast.Dict) for given in node.args):
        values = _value(node.args[0]) if node.args else {}
        for keyword in node.keywords:
            if keyword.arg is None:
                raise _not_data(node)
            values[keyword.arg] = _value(keyword.value)
        return values
    raise _not_data(node)


def _key(node: ast.expr | None, owner: ast.expr) -> Any:
    if not isinstance(node, ast.Constant):
        raise _not_data(node or owner)
    return node.value


def _not_data(node: ast.expr | ast.stmt) -> _Refused:
    return _Refused(f'line {node.lineno} has a {type(node).__name__}, '
                    'expected literals, lists, tuples and dict(...)')


class _Checker:
    """Looks for what would be imported, run or fetched.

    Args:
        default_scope: Of types without one.
    """

    def __init__(self, default_scope: Any) -> None:
        if default_scope not in SCOPES:
            raise _Refused(f'default_scope is {default_scope!r}, expected one '
                           f'of {SCOPES}')
        self._known: dict[str, set[str]] = {}

    def checked(self, value: Any, place: str) -> Any:
        """The value without ``init_cfg``."""
        if isinstance(value, (list, tuple)):
            return type(value)(self.checked(child, f'{place}[{number}]')
                               for number, child in enumerate(value))
        if isinstance(value, str) and _ADDRESS.match(value):
            raise _Refused(f'{place} is {value!r}, which would be downloaded')
        if not isinstance(value, dict):
            return value
        kept = {}
        for key, child in value.items():
            where = f'{place}.{key}' if place else str(key)
            if key == 'init_cfg':
                continue
            self._check(key, child, where)
            kept[key] = self.checked(child, where)
        self._check_language_model(kept, place)
        return kept

    def _check(self, key: Any, value: Any, where: str) -> None:
        looked_up = key == 'type' or isinstance(
            value, str) and (key in _LOOKED_UP or key == 'vocabulary'
                             and DATASET_NAME.fullmatch(value))
        if looked_up and not self._is_known(value):
            raise _Refused(
                f'{where} is {value!r}, expected the name of a component of '
                f'{", ".join(SCOPES)}')
        if key == '_scope_' and value not in SCOPES:
            raise _Refused(f'{where} is {value!r}, expected one of {SCOPES}')
        if key in _EVALUATED:
            raise _Refused(f'{where} would be run')
        if key in _FOLDERS and not _is_folder(value):
            raise _Refused(f'{where} is {value!r}, expected the folder of a '
                           'language model; a name would be downloaded')
        # Of a dotted name, Python imports the first part to find the second.
        if key == 'package' and not (value is None or isinstance(value, str)
                                     and value.isidentifier()):
            raise _Refused(f'{where} is {value!r}, expected the name of an '
                           'installed package')
        if key in _WEIGHTS and value not in (None, False) and not (isinstance(
                value, str) and Path(value).is_file()):
            raise _Refused(f'{where} is {value!r}, expected a file; a name '
                           'would be downloaded')

    def _check_language_model(self, part: dict, place: str) -> None:
        """Raise where transformers would look for a model on its hub."""
        if str(part.get('type')).rpartition('.')[2] in _LANGUAGE_MODELS and \
                not part.get('package') and not _is_folder(part.get('name')):
            raise _Refused(
                f"{place}.name is {part.get('name')!r}, expected the folder "
                'of a language model; a name would be downloaded')

    def _is_known(self, name: Any) -> bool:
        """Whether a type is registered, without importing what it names.

        A registry imports, and calls, any dotted path that it does not know.
        """
        if not isinstance(name, str):
            return False
        scope, dot, rest = name.rpartition('.')
        if not dot:
            return rest in _OPERATORS or any(
                rest in self._names(scope) for scope in SCOPES)
        return scope in SCOPES and rest in self._names(scope)

    def _names(self, scope: str) -> set[str]:
        """The registered names of a scope."""
        if scope not in self._known:
            module = import_module(f'{scope}.registry')
            names: set[str] = set()
            for registry in vars(module).values():
                if isinstance(registry,
                              Registry) and registry.name in _REGISTRIES:
                    registry.import_from_location()
                    names.update(registry.module_dict)
            self._known[scope] = names
        return self._known[scope]


def _is_folder(value: Any) -> bool:
    return isinstance(value, str) and Path(value).is_dir()
