# Licensed under the Apache License, Version 2.0.
"""How mmcv is compiled from joined sources, and installed."""
import argparse
import re
import subprocess
import sys

import pytest

MODULES = ('joined_sources', 'install_mmcv', 'setup_step')


@pytest.fixture
def tool(repository, monkeypatch):
    """A script of ``tools/misc`` as a module."""
    monkeypatch.syspath_prepend(str(repository / 'tools' / 'misc'))
    for name in MODULES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return __import__


@pytest.mark.parametrize(
    'text, names',
    [
        ('', ()),
        # A declaration is no definition.
        ('void f(int a); struct S; extern int n;', ()),
        ('struct S { int f(); };', ('S', )),
        ('template <typename T> struct Pre { T a; };', ('Pre', )),
        ('enum class E { A = 1, B };', ('E', )),
        ('template <class T> __global__ void g(T *x, int n = 3) { if (n) {} }',
         ('g', )),
        ('T A::f(int x) const { return x; }', ('f', )),
        ('static const int n = 3; const char *s[] = {"a", "b"};', ('n', 's')),
        ('using T = int; typedef unsigned long long U;', ('T', 'U')),
        ('namespace { int f() { return 1; } struct S {}; }\nnamespace a::b '
         '{ int g() { return 2; } }', ('f', 'S', 'g')),
        ('extern "C" { void h() {} }', ('h', )),
        # Neither comments nor literals nor directives nor bodies count.
        ('// int f() {\n/* int g() { } */ const char *q = "struct X {";',
         ('q', )),
        ('#define M(a) \\\n  int f##a() {}\n#if 1\nint k() { int j; }\n#endif',
         ('k', )),
        ("char c = '{'; int after() {}", ('c', 'after')),
    ])
def test_names_at_file_scope(tool, text, names):
    assert tool('joined_sources').definitions(text) == set(names)


def test_macros_end_with_their_source(tool, tmp_path):
    joined_sources = tool('joined_sources')
    text = ('#ifndef min\n#define min(a, b) a\n#endif\n# define N 3\n'
            '#define LOCAL 1\n#undef LOCAL\n')
    assert joined_sources.macros(text) == {'min', 'N'}
    first, second = tmp_path / 'a.cpp', tmp_path / 'b.cpp'
    first.write_text(text)
    second.write_text('')
    assert joined_sources.joined_text([first, second], []).splitlines() == [
        f'#include "{first}"', '#undef N', '#undef min', f'#include "{second}"'
    ]


def test_a_macro_of_a_header_stays(tool, tmp_path):
    """mmcv's stack_ball_query_cuda.cu defines one of the helper again."""
    (tmp_path / 'outer.hpp').write_text('#include "helper.hpp"\n')
    (tmp_path / 'helper.hpp').write_text('#pragma once\n#define DIVUP 1\n')
    first, second = tmp_path / 'a.cu', tmp_path / 'b.cu'
    first.write_text('#include "outer.hpp"\n#define DIVUP 1\n#define N 2\n')
    second.write_text('#include "helper.hpp"\nint n = DIVUP;\n')
    text = tool('joined_sources').joined_text([first, second], [tmp_path])
    assert text.splitlines() == [
        f'#include "{first}"', '#undef N', f'#include "{second}"'
    ]


def test_a_specialised_template_is_apart(tool, tmp_path):
    """mmcv's sparse_reordering.cu drops a default that another file needs."""
    (tmp_path / 'sum.h').write_text(
        'template <class D> struct Sum { void f(int a, int b = 1); };\n')
    (tmp_path / 'a.cu').write_text('#include <sum.h>\ntemplate <> struct '
                                   'Sum<int> { void f(int a, int b); };\n')
    (tmp_path /
     'b.cu').write_text('#include <sum.h>\nvoid g() { Sum<int>().f(1); }\n')
    (tmp_path / 'c.cu').write_text('#include "sum.h"\nint n = 3;\n')
    found = tool('joined_sources').groups(
        [tmp_path / name for name in ('a.cu', 'b.cu', 'c.cu')], [tmp_path],
        100)
    assert [[path.name for path in group]
            for group in found] == [['a.cu'], ['b.cu', 'c.cu']]


def test_sources_that_clash_are_apart(tool, tmp_path):
    """Names are compared by where they are defined, headers included."""
    groups = tool('joined_sources').groups
    common = tmp_path / 'common'
    common.mkdir()
    (common / 'shared.hpp').write_text('struct Shared {};')
    (common / 'p.cuh').write_text('void kernel() {}')
    (common / 'q.cuh').write_text('#include "shared.hpp"\nvoid kernel() {}')
    for name, text in (('a', '#include "shared.hpp"\nint f() {}'),
                       ('b', '#include "shared.hpp"\nint g() {}'),
                       ('c', 'float f() {}'), ('d', '#include "p.cuh"'),
                       ('e', '#include "q.cuh"'), ('f', '#include <vector>')):
        (tmp_path / f'{name}.cpp').write_text(text)
    sources = sorted(tmp_path.glob('*.cpp'))
    found = groups(sources, [common], most_lines=100)
    assert [[file.stem for file in group]
            for group in found] == [['a', 'b', 'd', 'f'], ['c', 'e']]
    # A line each, but a and b: two of them.
    found = groups(sources, [common], most_lines=2)
    assert [[file.stem for file in group] for group in found] == [['a'], ['b'],
                                                                  ['c', 'd'],
                                                                  ['e', 'f']]
    assert groups([], [], most_lines=2) == []


SETUP = """
import setuptools
from torch.utils.cpp_extension import BuildExtension, CppExtension
setuptools.setup(
    name='mmcv', version='1.0', packages=[], cmdclass=dict(
        build_ext=BuildExtension),
    ext_modules=[CppExtension('small', {sources!r}, include_dirs=['common'])])
"""
MODULE = """
#include <Python.h>
int one(int); int two(int); int three(int);
static PyObject *sum(PyObject *, PyObject *) {
  return PyLong_FromLong(one(1) + two(1) + three(1));
}
static PyMethodDef methods[] = {{"sum", sum, METH_NOARGS, ""}, {}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "small", "", -1, methods};
PyMODINIT_FUNC PyInit_small() { return PyModule_Create(&module); }
"""


@pytest.fixture
def source(tmp_path):
    """A small extension that is built as mmcv is."""
    folder = tmp_path / 'source'
    (folder / 'ops').mkdir(parents=True)
    files = dict(
        module=MODULE,
        one='static int help(int a) { return a; }\n'
        'int one(int a) { return help(a); }',
        two='static int help(int a) { return 10 * a; }\n'
        'int two(int a) { return help(a); }',
        three='#define help 100\nint three(int a) { return help * a; }')
    for name, text in files.items():
        (folder / 'ops' / f'{name}.cpp').write_text(text)
    (folder / 'setup.py').write_text(
        SETUP.format(sources=[f'./ops/{name}.cpp' for name in files]))
    return folder


def objects(folder):
    return sorted(path.stem for path in folder.rglob('build/**/*.o'))


def built_sum(wheel, tmp_path):
    """What the extension in a wheel computes."""
    import zipfile
    zipfile.ZipFile(wheel).extractall(tmp_path / 'unpacked')
    code = 'import small; print(small.sum())'
    return subprocess.run([sys.executable, '-c', code],
                          cwd=tmp_path / 'unpacked',
                          capture_output=True,
                          text=True).stdout.strip()


def test_joined_and_one_by_one_are_the_same(tool, source, tmp_path, capfd):
    """A joined file that fails is replaced by its sources.

    The rule does not see that two files give one function a default: the
    joined file with both does not compile.
    """
    install_mmcv = tool('install_mmcv')
    wheel = install_mmcv.build_wheel(source, tmp_path / 'wheel', False)
    assert objects(source) == ['cpp_0', 'two']
    assert built_sum(wheel, tmp_path) == '111'
    output = capfd.readouterr().out
    assert re.findall('progress: .*', output) == [
        'progress: 5 %, compiling', 'progress: 47 %, compiled 1 of 2 files',
        'progress: 90 %, compiled 2 of 2 files'
    ]

    times = {
        path.name: path.stat().st_mtime_ns
        for path in source.rglob('build/**/*.o')
    }
    for name in ('one', 'three'):
        file = source / 'ops' / f'{name}.cpp'
        file.write_text('int free_(int a = 1);\n' + file.read_text())
    wheel = install_mmcv.build_wheel(source, tmp_path / 'wheel', False)
    assert objects(source) == ['cpp_0', 'module', 'one', 'three', 'two']
    assert built_sum(wheel, tmp_path) == '111'
    assert "['cpp_0'], their sources are compiled" in capfd.readouterr().out
    # What was compiled already was not compiled again.
    assert next(
        source.rglob('build/**/two.o')).stat().st_mtime_ns == times['two.o']


def test_a_source_that_fails_by_itself(tool, source, tmp_path, monkeypatch):
    install_mmcv = tool('install_mmcv')
    (source / 'joined').mkdir()
    lines = '[1/3] c++ -c a.cpp -o build/a.o', 'FAILED: [code=1] build/two.o '
    failed = install_mmcv.run_build([
        sys.executable, '-c',
        f'print({chr(10).join(lines)!r}); raise SystemExit(1)'
    ], source, {})
    assert failed == {'build/two.o'}
    monkeypatch.setattr(install_mmcv, 'run_build', lambda *args: failed)
    with pytest.raises(SystemExit, match='mmcv: build/two.o failed'):
        install_mmcv.build_wheel(source, tmp_path / 'wheel', False)


@pytest.mark.parametrize('release, cuda, reason', [
    ('release 13.0, V13.0.88', '13.2', None),
    ('release 12.4, V12.4.99', '13.0',
     'torch was built with CUDA 13.0, and .*/bin/nvcc is release 12.4'),
    ('no version', '13.0', 'is of an unknown version'),
    (None, '13.0', 'there is no nvcc'),
])
def test_an_nvcc_that_does_not_fit(tool, tmp_path, monkeypatch, release, cuda,
                                   reason):
    from torch.utils import cpp_extension
    monkeypatch.setattr(cpp_extension, 'CUDA_HOME', str(tmp_path))
    if release is not None:
        nvcc = tmp_path / 'bin' / 'nvcc'
        nvcc.parent.mkdir()
        nvcc.write_text(f'#!/bin/sh\necho "Cuda compilation tools, {release}"')
        nvcc.chmod(0o755)
    found = tool('install_mmcv').nvcc_misfit(cuda)
    if reason is None:
        assert found is None
    else:
        assert re.search(reason, found)


def test_where_cuda_is_left_out(tool, monkeypatch):
    import torch
    monkeypatch.delenv('FORCE_CUDA', raising=False)
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    install_mmcv = tool('install_mmcv')
    assert install_mmcv.no_cuda() == 'torch finds no GPU'
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.version, 'cuda', '13.0')
    monkeypatch.setattr(torch.version, 'hip', None)
    monkeypatch.setattr(install_mmcv, 'nvcc_misfit', '{} does not fit'.format)
    assert install_mmcv.no_cuda() == '13.0 does not fit'
    monkeypatch.setenv('FORCE_CUDA', '1')
    assert install_mmcv.no_cuda() is None


def test_cpu_operators_are_not_enough_for_a_gpu(tool, run_tool, tmp_path):
    """The installed mmcv works; only the GPU asks for more."""
    import mmcv
    from mmcv.ops import get_compiling_cuda_version
    knows_cuda = get_compiling_cuda_version() != 'not available'
    cpu_only = tmp_path / 'cpu-only'
    check = 'misc/check_mmcv_operators.py'
    code, log = run_tool(check, mmcv.__version__, cpu_only)
    assert code == 0, log
    assert cpu_only.exists() is not knows_cuda
    assert run_tool(check, '0.1', cpu_only)[0] == 1
    args = argparse.Namespace(version=mmcv.__version__, build=tmp_path)
    operators_work = tool('install_mmcv').operators_work
    assert operators_work(args, cuda=True) is knows_cuda
