# Licensed under the Apache License, Version 2.0.
"""What the installed stack must be, and what is mended when it is not.

Everything is judged by what can be imported, never by the names of the
installed distributions: the maintained forks (``onedl-mmdetection`` and so
on) provide the same imports under other names.
"""
import importlib
import importlib.util
import logging
import pickle
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import mmengine
import numpy as np
import torch
from mmengine.logging import MMLogger
from mmengine.logging.history_buffer import HistoryBuffer
from mmengine.utils import digit_version

INSTALL_MMCV = ('`MMCV_WITH_OPS=1 pip install --no-build-isolation '
                'mmcv==2.1.0`')
# torchvision describes these operators at import, even when the library
# that defines them does not load.
TORCHVISION_SCHEMAS = dict(
    nms='nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor',
    qnms='qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
# Warnings of good runs that are others' and can not be avoided, by message and
# module: mmdet calls meshgrid so, and mmengine imports pkg_resources and then
# reloads it.
PYTHON_WARNINGS_OF_GOOD_RUNS = (
    (r'torch\.meshgrid: in an upcoming release', UserWarning,
     r'torch\.functional'),
    (r'pkg_resources is deprecated', UserWarning,
     r'mmengine\.utils\.package_utils|importlib$'),
    # mmdet's SimOTA and CSPNeXt, as they run and as they are imported.
    (r'`torch\.cuda\.amp\.\w+\(args\.\.\.\)` is deprecated', FutureWarning,
     r'mmdet\.'),
    # A box that ends at the edge of its image, as it is drawn.
    (r'Warning: The (bbox|polygon|text) is out of bounds', UserWarning,
     r'mmengine\.visualization'),
)
# The same that MMEngine logs: its checkpoint hook uses its own deprecated file
# client, and a frozen parameter is what a config asked for.
LOGGED_WARNINGS_OF_GOOD_RUNS = re.compile(
    r'"FileClient" will be deprecated in future\. Please use io functions|'
    r'"HardDiskBackend" is the alias of "LocalBackend" and the former|'
    r'\S+ is skipped since its requires_grad=False$')
HISTORY_STATISTICS = dict(
    min=HistoryBuffer.min,
    max=HistoryBuffer.max,
    current=HistoryBuffer.current,
    mean=HistoryBuffer.mean)


def check_torch() -> None:
    """Check that torch loads checkpoints safely.

    Raises:
        ImportError: torch is older than 2.6, whose ``torch.load`` runs the
            code in a checkpoint.
    """
    if digit_version(torch.__version__) < digit_version('2.6.0'):
        raise ImportError(
            f'torch {torch.__version__} can run code that a checkpoint '
            'contains: `pip install "torch>=2.6"`, and build mmcv for it, '
            f'{INSTALL_MMCV}.')


def check_opencv() -> None:
    """Check that OpenCV loads, if it is installed.

    mmengine requires ``opencv-python``, whose libraries need libGL, which a
    machine without a display may lack.

    Raises:
        ImportError: One of its libraries is missing.
    """
    if importlib.util.find_spec('cv2') is None:
        return
    try:
        importlib.import_module('cv2')
    except ImportError as error:
        raise ImportError(
            f'OpenCV does not load ({error}): replace it by its build for '
            'machines without a display, `pip uninstall -y opencv-python && '
            'pip install --force-reinstall --no-deps '
            'opencv-python-headless`.') from error


def check_mmcv() -> None:
    """Check that mmcv is installed with operators that load.

    Raises:
        ImportError: mmcv is missing, lacks its operators (``mmcv-lite``), or
            has operators that were built for another torch.
    """
    if importlib.util.find_spec('mmcv') is None:
        raise ImportError(
            f'mmdet_clim needs mmcv, which is missing: {INSTALL_MMCV}.')
    import mmcv
    if importlib.util.find_spec('mmcv._ext') is None:
        raise ImportError(
            f'mmcv {mmcv.__version__} is installed without its operators '
            '(mmcv-lite, or a build without MMCV_WITH_OPS=1): `pip uninstall '
            f'mmcv-lite mmcv`, then {INSTALL_MMCV}.')
    try:
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        raise ImportError(
            f'The operators of mmcv {mmcv.__version__} do not load with '
            f'torch {torch.__version__} ({error}): build mmcv for this '
            f'torch, {INSTALL_MMCV}.') from error


def check_mmdet() -> None:
    """Check that mmdet is installed and takes the installed mmcv.

    Raises:
        ImportError: mmdet is missing, or refuses the version of mmcv or
            mmengine that it finds.
    """
    if importlib.util.find_spec('mmdet') is None:
        raise ImportError(
            'mmdet_clim needs MMDetection, which is missing: `pip install '
            'mmdet==3.3.0`, or the fork onedl-mmdetection.')
    try:
        importlib.import_module('mmdet')
    except AssertionError as error:
        # mmdet compares versions in its __init__ after it has imported its
        # own version file, which therefore stays behind.
        version = sys.modules['mmdet.version'].__version__
        raise ImportError(
            f'mmdet {version} does not work with the installed stack '
            f'({error}): for mmdet 3.3 install mmcv 2.1.0, {INSTALL_MMCV}, '
            'and mmengine 0.10.7, `pip install mmengine==0.10.7`.') from error


def do_without_pkg_resources() -> None:
    """Let MMEngine find packages where ``pkg_resources`` is missing.

    setuptools 82 removed it, and environments of Python 3.12 begin without
    setuptools. MMEngine 0.10.7 asks it where the package of a ``pkg::`` base
    config is, which Python's import system knows as well. Does nothing where
    it is there.
    """
    if importlib.util.find_spec('pkg_resources') is not None:
        return
    import mmengine.utils
    for stand_in in (is_installed, get_installed_path):
        name = stand_in.__name__
        original = getattr(mmengine.utils, name)
        # Those that import it later find it where it was defined.
        for module in list(sys.modules.values()):
            if getattr(module, '__name__', '').startswith('mmengine') and \
                    vars(module).get(name) is original:
                setattr(module, name, stand_in)


def is_installed(package: str) -> bool:
    """Stand in for MMEngine's: whether a package can be imported.

    Args:
        package (str): Its name; a folder without ``__init__`` is none.
    """
    spec = importlib.util.find_spec(package)
    return spec is not None and spec.origin is not None


def get_installed_path(package: str) -> str:
    """Stand in for MMEngine's: the folder of a package.

    Args:
        package (str): Its name.

    Raises:
        ModuleNotFoundError: If it can not be imported.
    """
    return str(_folder_of(package))


def _folder_of(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f'No module named {package!r}', name=package)
    return Path(spec.origin).parent


def declare_torchvision_operators() -> None:
    """Make ``import torchvision`` work where its operators do not load.

    PyPI only has a CUDA build of torchvision. Beside a CPU-only torch its
    library does not load, and the import stops because operators that it
    describes do not exist. Declaring their schemas lets it go on; calling
    one of them still fails with an error of its own. Does nothing if
    torchvision is missing, is imported already, or loads its library, which
    is ``_C`` up to torchvision 0.28 and ``_C_stable`` later: declaring an
    operator before its library loads would end the process.
    """
    spec = importlib.util.find_spec('torchvision')
    if spec is None or 'torchvision' in sys.modules:
        return
    for library in sorted(_folder_of('torchvision').glob('_C*.so')):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            # Its dependencies are missing: torchvision can not load it either.
            continue
    for name, schema in TORCHVISION_SCHEMAS.items():
        if name not in _declared_torchvision_operators():
            torch.library.define(f'torchvision::{name}',
                                 schema[schema.index('('):])


def _declared_torchvision_operators() -> set:
    """Names of the operators that exist in torchvision's namespace."""
    prefix = 'torchvision::'
    return {
        schema.name[len(prefix):]
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith(prefix)
    }


def allow_checkpoint_types() -> None:
    """Allow the types in MMEngine's checkpoints to be loaded.

    ``torch.load`` refuses every type that is not allowed; MMEngine's message
    hub saves its log as ``HistoryBuffer`` objects with NumPy arrays and
    scalars. The check itself stays on: a checkpoint can not run code.
    """
    array, scalar = np.empty(0).__reduce__()[0], np.int64(0).__reduce__()[0]
    numbers = (np.float64, np.float32, np.int64, np.int32, np.bool_)
    torch.serialization.add_safe_globals([
        HistoryBuffer,
        (history_statistic, 'builtins.getattr'),
        np.ndarray,
        np.dtype,
        *{type(np.dtype(number))
          for number in numbers},
        # NumPy 2 moved both; a checkpoint may be older or newer than it.
        (array, 'numpy.core.multiarray._reconstruct'),
        (array, 'numpy._core.multiarray._reconstruct'),
        (scalar, 'numpy.core.multiarray.scalar'),
        (scalar, 'numpy._core.multiarray.scalar'),
    ])


def keep_mmengine_to_allowed_types() -> None:
    """Let MMEngine load a checkpoint as ``torch.load`` does it by itself.

    onedl-mmengine (0.10.12) loads one that was refused again, with the check
    off: it would run the code in it. It also allows the real ``getattr`` for
    the time of a load, and after it forbids the types of
    :func:`allow_checkpoint_types`.
    """
    # The last without that; mmengine.runner takes a second to import.
    if digit_version(mmengine.__version__) <= digit_version('0.10.7'):
        return
    from mmengine.runner import checkpoint
    if '_safe_torch_load' in vars(checkpoint):
        checkpoint._safe_torch_load = torch.load


def history_statistic(owner: type, name: str) -> Callable:
    """Stand in for ``getattr`` while a checkpoint is loaded.

    A ``HistoryBuffer`` is pickled with its statistics as
    ``getattr(HistoryBuffer, 'mean')`` and so on. The real ``getattr`` would
    give a checkpoint the way to everything; this one gives those four.

    Args:
        owner (type): Whose attribute the checkpoint asks for.
        name (str): Which attribute it asks for.

    Returns:
        Callable: The statistic.

    Raises:
        UnpicklingError: Anything else is asked for.
    """
    if owner is not HistoryBuffer or name not in HISTORY_STATISTICS:
        raise pickle.UnpicklingError(
            f'The checkpoint asks for attribute {name!r} of {owner!r}; '
            f'expected one of {sorted(HISTORY_STATISTICS)} of HistoryBuffer. '
            'It was not written by MMEngine and may be malicious.')
    return HISTORY_STATISTICS[name]


def silence_warnings_of_good_runs() -> None:
    """Drop warnings of other packages that cannot be avoided, nothing else.

    These are :data:`PYTHON_WARNINGS_OF_GOOD_RUNS`, and warnings of MMEngine's
    loggers that begin as one of :data:`LOGGED_WARNINGS_OF_GOOD_RUNS`.
    """
    for message, category, module in PYTHON_WARNINGS_OF_GOOD_RUNS:
        warnings.filterwarnings(
            'ignore', message, category=category, module=module)
    MMLogger.filter = _filter_record


def _filter_record(logger: MMLogger, record: logging.LogRecord):
    """Stand in for ``logging.Logger.filter``."""
    if (record.levelno == logging.WARNING
            and LOGGED_WARNINGS_OF_GOOD_RUNS.match(str(record.msg))):
        return False
    return super(MMLogger, logger).filter(record)


def allow_config_bases() -> None:
    """Let other configs inherit from ``mmdet_clim::...``."""
    from mmengine.config.utils import MODULE2PACKAGE
    MODULE2PACKAGE.setdefault('mmdet_clim', 'mmdet_clim')
