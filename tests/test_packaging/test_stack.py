# Licensed under the Apache License, Version 2.0.
"""A wrong stack, made of small packages in front of the real ones."""
import json
import logging
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import mmdet
import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.visualization import Visualizer

from mmdet_clim import stack

# Imports what takes long once and answers each request in a fork of itself.
SERVER = """
import json, os, sys, tempfile, traceback
import cv2, matplotlib, mmengine.runner, torch
for line in sys.stdin:
    request = json.loads(line)
    with tempfile.TemporaryFile('w+') as out, \\
            tempfile.TemporaryFile('w+') as err:
        child = os.fork()
        if child == 0:
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            sys.path[:0] = request['path']
            code = 0
            try:
                exec(request['code'], dict(__name__='__main__'))
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out.seek(0)
        err.seek(0)
        result = dict(returncode=code, stdout=out.read(), stderr=err.read())
        print(json.dumps(result), flush=True)
"""


@pytest.fixture(scope='module')
def interpreter():
    """A Python whose heavy imports are done, mmcv's and mmdet's are not."""
    server = subprocess.Popen([sys.executable, '-c', SERVER],
                              stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE,
                              text=True)
    yield server
    server.stdin.close()
    server.wait()


@pytest.fixture
def import_with(interpreter, repository):

    def run(folder, code='import mmdet_clim', prelude=''):
        request = dict(
            path=[str(folder), str(repository)], code=f'{prelude}\n{code}')
        interpreter.stdin.write(json.dumps(request) + '\n')
        interpreter.stdin.flush()
        return SimpleNamespace(**json.loads(interpreter.stdout.readline()))

    return run


def write_package(folder, name, code):
    path = folder / name
    path.mkdir(parents=True)
    (path / '__init__.py').write_text(code)


# Hides modules, as if they were not installed.
HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name in {names!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Hidden())
import importlib.util
find_spec = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: (
    None if name in {names!r} else find_spec(name, package))
"""


def last_line(done):
    assert done.returncode != 0, done.stdout
    return done.stderr.strip().splitlines()[-1]


def test_a_right_stack_imports_silently(tmp_path, import_with):
    done = import_with(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ''


@pytest.mark.parametrize('level, message, kept', [
    (logging.WARNING, '"FileClient" will be deprecated in future. Please use '
     'io functions in https://x', False),
    (logging.WARNING, '"HardDiskBackend" is the alias of "LocalBackend" and '
     'the former will be deprecated in future.', False),
    (logging.WARNING, 'a.b.weight is skipped since its requires_grad=False',
     False),
    (logging.ERROR, 'a.b.weight is skipped since its requires_grad=False',
     True),
    (logging.WARNING, 'a.b.weight is duplicate. It is skipped since '
     'bypass_duplicate=True', True),
    (logging.WARNING, 'Failed to search registry with scope "mmdet"', True),
    (logging.WARNING, ValueError('not a text'), True),
])
def test_only_warnings_of_good_runs_are_dropped(caplog, level, message, kept):
    stack.silence_warnings_of_good_runs()
    logger = MMLogger('test_stack')
    logger.handlers.clear()
    logger.addHandler(caplog.handler)
    logger.log(level, message)
    assert [record.msg for record in caplog.records] == [message] * kept


def test_a_box_at_the_edge_is_drawn_without_a_warning():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        stack.silence_warnings_of_good_runs()
        visualizer = Visualizer(image=np.zeros((8, 8, 3), np.uint8))
        visualizer.draw_bboxes(torch.tensor([[1., 1., 8., 8.]]))
        warnings.warn('the bbox is out of bounds', stacklevel=1)
    assert [str(one.message) for one in told] == ['the bbox is out of bounds']


def test_mmengine_finds_packages_silently(tmp_path, import_with):
    """It imports ``pkg_resources``, which is deprecated, and reloads it."""
    done = import_with(
        tmp_path, 'import mmdet_clim\n'
        'from mmengine.utils import is_installed\n'
        'assert is_installed("mmengine")\n'
        'import warnings\n'
        'warnings.warn("pkg_resources is deprecated as an API")')
    assert done.returncode == 0, done.stderr
    # One's own use of it is not silenced.
    assert done.stderr.count('UserWarning') == 1
    assert '<string>' in done.stderr


@pytest.mark.parametrize('names, sentence', [
    (('mmdet', ), 'MMDetection, which is missing: `pip install mmdet==3.3.0`'),
    (('mmcv', ), 'needs mmcv, which is missing: `MMCV_WITH_OPS=1'),
    (('mmcv._ext', ), 'without its operators (mmcv-lite'),
])
def test_what_is_missing_is_named(tmp_path, import_with, names, sentence):
    done = import_with(tmp_path, prelude=HIDE.format(names=names))
    line = last_line(done)
    assert line.startswith('ImportError: ')
    assert sentence in line


def test_setuptools_without_what_it_had(tmp_path, import_with):
    """mmengine asks pkg_resources for the package of a base config."""
    (tmp_path / 'config.py').write_text(
        "_base_ = 'mmdet_clim::_base_/clim/openmoji_captions_tags.py'\n")
    (tmp_path / 'folder').mkdir()
    done = import_with(
        tmp_path, 'import mmdet_clim, mmengine\n'
        'from mmengine.config import Config\n'
        'from mmengine.utils import get_installed_path, is_installed\n'
        f"cfg = Config.fromfile({str(tmp_path / 'config.py')!r})\n"
        'assert cfg.clim_objectives\n'
        "assert is_installed('mmdet')\n"
        "assert not is_installed('no_such_package')\n"
        "assert not is_installed('folder')\n"
        'from pathlib import Path\n'
        "assert get_installed_path('mmdet') == str("
        'Path(mmengine.__file__).parents[1] / "mmdet")\n'
        'try:\n'
        "    get_installed_path('no_such_package')\n"
        'except ModuleNotFoundError as error:\n'
        '    print(error)\n',
        prelude=HIDE.format(names=('pkg_resources', )))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "No module named 'no_such_package'\n"


@pytest.mark.skipif(
    mmdet.__version__ != '3.3.0', reason='onedl-mmdetection takes every mmcv')
def test_mmcv_that_mmdet_refuses(tmp_path, import_with):
    write_package(tmp_path, 'mmcv', '__version__ = "2.2.0"')
    (tmp_path / 'mmcv' / '_ext.py').touch()
    line = last_line(import_with(tmp_path))
    assert line.startswith('ImportError: mmdet 3.3.0 does not work with')
    assert 'MMCV==2.2.0' in line
    assert 'install mmcv 2.1.0' in line


def test_opencv_without_libgl(tmp_path, import_with):
    write_package(
        tmp_path, 'cv2', 'raise ImportError("libGL.so.1: cannot open shared '
        'object file: No such file or directory")')
    # The server has the real one.
    line = last_line(
        import_with(tmp_path, prelude='import sys; del sys.modules["cv2"]'))
    assert 'OpenCV does not load (libGL.so.1: cannot open' in line
    assert line.endswith('opencv-python-headless`.')


def test_operators_of_another_torch(tmp_path, import_with):
    write_package(tmp_path, 'mmcv', '__version__ = "2.1.0"')
    (tmp_path / 'mmcv' /
     '_ext.py').write_text('raise ImportError("undefined symbol: _ZN3c10")')
    line = last_line(import_with(tmp_path))
    assert 'operators of mmcv 2.1.0 do not load with torch' in line
    assert 'undefined symbol' in line


def test_torch_that_runs_code_in_checkpoints(tmp_path, import_with):
    line = last_line(
        import_with(
            tmp_path, prelude='import torch; torch.__version__ = "2.5.1"'))
    assert 'torch 2.5.1 can run code that a checkpoint contains' in line
    assert 'torch>=2.6' in line


def test_a_fork_of_mmdet_with_its_own_limits_is_taken(tmp_path, import_with):
    write_package(tmp_path, 'mmcv', '__version__ = "2.3.6"')
    (tmp_path / 'mmcv' / '_ext.py').touch()
    write_package(tmp_path, 'mmdet', '__version__ = "3.4.5"')
    done = import_with(tmp_path)
    assert done.returncode == 0, done.stderr


def test_torchvision_imports_whatever_its_operators(tmp_path, import_with):
    code = ('import mmdet_clim, sys\n'
            'assert "torchvision" not in sys.modules\n'
            'import torchvision, open_clip\n'
            'print(torchvision.ops.box_iou.__name__)')
    done = import_with(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == 'box_iou'


def test_operators_are_declared_where_no_library_loads(tmp_path, import_with):
    write_package(
        tmp_path, 'torchvision', 'import torch\n'
        'for name in ("nms", "qnms"):\n'
        '    torch.library.register_fake(f"torchvision::{name}")'
        '(lambda boxes, scores, threshold: boxes)')
    # Twice, and with one operator that somebody else has declared.
    code = ('import torch\n'
            'torch.library.define("torchvision::nms", "(Tensor dets, '
            'Tensor scores, float iou_threshold) -> Tensor")\n'
            'import mmdet_clim\n'
            'mmdet_clim.stack.declare_torchvision_operators()\n'
            'import torchvision')
    done = import_with(tmp_path, code)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('name', ['_C.so', '_C_stable.so'])
def test_libraries_of_torchvision_load_before_operators_are_declared(
        tmp_path, monkeypatch, name):
    """torchvision 0.29 has another library than the ones before.

    One that loads after its operators were declared ends the process.
    """
    write_package(tmp_path, 'torchvision', '')
    (tmp_path / 'torchvision' / name).touch()
    (tmp_path / 'torchvision' / 'image.so').touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'torchvision', raising=False)
    steps = []
    monkeypatch.setattr(torch.ops, 'load_library',
                        lambda path: steps.append(Path(path).name))
    monkeypatch.setattr(torch.library, 'define',
                        lambda name, schema: steps.append(name))
    monkeypatch.setattr(stack, '_declared_torchvision_operators', set)
    stack.declare_torchvision_operators()
    assert steps == [name, 'torchvision::nms', 'torchvision::qnms']
