# Licensed under the Apache License, Version 2.0.
"""What the wheel and the sdist hold."""
import re
import runpy
import stat
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
import yaml

from mmdet_clim import __version__


def tracked(repository, folder, *suffixes):
    return sorted(
        str(path.relative_to(repository))
        for path in (repository / folder).rglob('*')
        if path.suffix in suffixes and '__pycache__' not in path.parts)


def test_wheel_holds_every_config_and_tool_as_a_file(wheel, repository):
    expected = ['model-index.yml'] + tracked(
        repository, 'configs', '.py', '.yml', '.pth') + tracked(
            repository, 'tools', '.py', '.sh')
    with zipfile.ZipFile(wheel) as archive:
        for name in expected:
            member = archive.getinfo(f'mmdet_clim/.mim/{name}')
            assert not stat.S_ISLNK(member.external_attr >> 16)
            assert archive.read(member) == (repository / name).read_bytes()
        names = archive.namelist()
    assert not [name for name in names if name.endswith('.pyc')]
    assert not [name for name in names if name.startswith('tests/')]
    tables = tracked(repository, 'mmdet_clim/datasets', '.yaml')
    assert tables
    assert {'mmdet_clim/py.typed', 'mmdet_clim_cli/__main__.py',
            *tables} <= set(names)


def test_metadata_forces_no_openmmlab_distribution(wheel):
    with zipfile.ZipFile(wheel) as archive:
        name = f'mmdet_clim-{__version__}.dist-info/METADATA'
        metadata = Parser().parsestr(archive.read(name).decode())
    assert metadata['Version'] == __version__
    assert metadata['License'] == 'Apache-2.0'
    assert metadata['Requires-Python'] == '<3.13,>=3.10'
    required = [
        line for line in metadata.get_all('Requires-Dist')
        if 'extra ==' not in line
    ]
    assert any(line.startswith('torch>=2.6') for line in required)
    # setuptools is capped for mim alone.
    for name in ('mmdet', 'mmcv', 'mmengine', 'opencv', 'openmim',
                 'setuptools'):
        assert not [line for line in required if line.startswith(name)]
    extras = set(metadata.get_all('Provides-Extra'))
    assert {'mim', 'mmdet', 'openmoji', 'tests'} <= extras
    assert metadata['Author'] == 'The mmdet_clim contributors'
    # No address is claimed that nobody has registered.
    assert metadata['Home-page'] is None
    assert metadata.get_all('Project-URL') == [
        'Paper, https://arxiv.org/abs/2312.11376'
    ]
    # On PyPI, a link within the repository leads nowhere.
    text = metadata.get_payload()
    assert 'from captions to a detector' in text
    assert re.findall(r'\]\((?!https://)', text) == []


@pytest.mark.parametrize('text, expected', [
    ('[a](docs/a.md#b)', '[a](https://x/y/blob/main/docs/a.md#b)'),
    ('![a](docs/a.png)', '![a](https://x/y/raw/main/docs/a.png)'),
    ('[![a](b.png)](c.md)',
     '[![a](https://x/y/raw/main/b.png)](https://x/y/blob/main/c.md)'),
    ('[a](https://z) [b](#c) [d](mailto:e)',
     '[a](https://z) [b](#c) [d](mailto:e)'),
    ('`f(a)[b] (c)`', '`f(a)[b] (c)`'),
    ('', ''),
])
def test_links_of_the_description(repository, text, expected):
    setup = runpy.run_path(str(repository / 'setup.py'))
    assert setup['description'](text, 'https://x/y') == expected


@pytest.mark.parametrize('text, expected', [
    ('[a](docs/a.md#b) and ![c](d.png)', 'a and c'),
    ('[![a](b.png)](c.md)', 'a'),
    ('[![a](https://x/b.png)](c.md)', '![a](https://x/b.png)'),
    ('[![a](b.png)](https://x)', '[a](https://x)'),
    ('[a](https://z) [b](#c) [d](mailto:e)',
     '[a](https://z) [b](#c) [d](mailto:e)'),
    ("`f(a)[b] (c)` and `f('x')['y']`", "`f(a)[b] (c)` and `f('x')['y']`"),
    ('', ''),
])
def test_links_of_a_description_without_an_address(repository, text, expected):
    setup = runpy.run_path(str(repository / 'setup.py'))
    for none in (None, ''):
        assert setup['description'](text, none) == expected


def test_a_publisher_gives_one_address(repository):
    """The one of setup.cfg; all others follow from it."""
    setup = runpy.run_path(str(repository / 'setup.py'))
    for none in (None, ''):
        assert list(setup['project_urls'](none)) == ['Paper']
    urls = setup['project_urls']('https://x/y')
    assert urls.pop('Paper').startswith('https://arxiv.org/')
    for url in urls.values():
        path = url.removeprefix('https://x/y')
        assert path in ('/issues',
                        *(f'/blob/main/{file}'
                          for file in ('CHANGELOG.md', 'docs/index.md')))
        assert path == '/issues' or (repository / path[11:]).is_file()


def test_the_release_has_one_version(repository):
    citation = yaml.safe_load((repository / 'CITATION.cff').read_text())
    assert citation['version'] == __version__


def test_the_command_of_the_installed_wheel(installed_package, run_python,
                                            tmp_path):
    """It is the script in the wheel, wherever the program stands."""
    out = run_python(
        '-m',
        'mmdet_clim_cli',
        'infer',
        '--help',
        cwd=tmp_path,
        env=installed_package)
    assert out.startswith('usage: clim infer ')
    site_packages = installed_package['PYTHONPATH']
    out = run_python(
        '-c', 'from mmdet_clim_cli.__main__ import COMMANDS, script_of; '
        "print(script_of(COMMANDS['train']))",
        cwd=tmp_path,
        env=installed_package)
    assert out.strip() == f'{site_packages}/mmdet_clim/.mim/tools/train.py'
    assert Path(site_packages, 'bin', 'clim').is_file()


def test_sdist_holds_real_files_and_builds_the_same_wheel(
        source_tree, wheel, run_python, tmp_path):
    run_python(
        '-c', 'from setuptools import build_meta\n'
        f'build_meta.build_sdist({str(tmp_path)!r})',
        cwd=source_tree)
    sdist = next(tmp_path.glob(f'mmdet_clim-{__version__}.tar.gz'))
    with tarfile.open(sdist) as archive:
        members = archive.getmembers()
        names = {member.name for member in members}
        archive.extractall(tmp_path, filter='data')
    assert not [member.name for member in members if member.issym()]
    for name in ('LICENSE', 'README.md', 'mmdet_clim/.mim/tools/train.py',
                 'mmdet_clim/.mim/model-index.yml'):
        assert f'mmdet_clim-{__version__}/{name}' in names
    run_python('-m', 'pip', 'wheel', '--quiet', '--no-deps',
               '--no-build-isolation', '--wheel-dir', tmp_path / 'again',
               tmp_path / f'mmdet_clim-{__version__}')
    rebuilt = next((tmp_path / 'again').glob('*.whl'))
    with zipfile.ZipFile(wheel) as one, zipfile.ZipFile(rebuilt) as two:
        assert sorted(one.namelist()) == sorted(two.namelist())


def test_index_and_metafiles_agree_with_the_configs(repository):
    index = yaml.safe_load((repository / 'model-index.yml').read_text())
    metafiles = [
        str(path.relative_to(repository))
        for path in (repository / 'configs').rglob('metafile.yml')
    ]
    assert sorted(index['Import']) == sorted(metafiles)
    described = []
    for metafile in metafiles:
        for model in yaml.safe_load(
            (repository / metafile).read_text())['Models']:
            # mim searches in lower case only.
            assert model['Name'] == model['Name'].lower()
            described.append(model['Config'])
    configs = [
        name for name in tracked(repository, 'configs', '.py')
        if '/_base_/' not in name
    ]
    assert sorted(described) == configs
    # mim finds a config by its base name.
    base_names = [name.rsplit('/', 1)[-1] for name in configs]
    assert len(set(base_names)) == len(base_names)
