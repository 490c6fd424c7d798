# Licensed under the Apache License, Version 2.0.
"""CPU time to compile mmcv's operators, file by file twice and joined once.

    python benchmarks/build_mmcv.py --source .venv/.build/torch-*/mmcv-2.1.0
    python benchmarks/build_mmcv.py --source ... --whole

``--source`` is an unpacked source of mmcv, which `make setup` leaves behind.
`setup.py build bdist_wheel`, which built mmcv here before, compiles every file
twice. Without ``--whole``, some files of each folder are compiled as it does,
and the figure is extrapolated to all of them; the joined files are all
compiled. Both sides are for the CPU, with the same compiler and options, one
file after the other. Figures are seconds of user and system time.
"""
import argparse
import os
import resource
import shlex
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from torch.utils import cpp_extension

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'tools' / 'misc'))

from build_mmcv_wheel import joined  # noqa: E402

OPERATORS = Path('mmcv', 'ops', 'csrc')
SAMPLE = {'pytorch': 4, 'pytorch/cpu': 3}


def compile_file(source: Path, folder: Path) -> float:
    """Compile one file; give back its CPU seconds."""
    include_dirs = [
        folder / OPERATORS / 'common', *cpp_extension.include_paths(),
        sysconfig.get_path('include')
    ]
    command = [
        *shlex.split(os.environ.get('CXX', sysconfig.get_config_var('CXX'))),
        *shlex.split(sysconfig.get_config_var('CFLAGS')), '-fPIC', '-g0',
        '-O1', '-w', '-std=c++17', '-DTORCH_API_INCLUDE_EXTENSION_H',
        '-DTORCH_EXTENSION_NAME=_ext', *(f'-I{path}' for path in include_dirs)
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as objects:
        subprocess.run(
            [*command, '-c', source, '-o',
             Path(objects) / 'object.o'],
            check=True,
            cwd=folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime + after.ru_stime -
            before.ru_stime)


def one_by_one(folder: Path, whole: bool) -> float:
    """CPU seconds of all files, as far as not ``whole`` by extrapolation."""
    total = 0.
    for name, count in SAMPLE.items():
        files = sorted((folder / OPERATORS / name).glob('*.cpp'))
        # Spread over the alphabet, and so over small and large ones.
        chosen = files if whole else files[::len(files) // count][:count]
        seconds = [compile_file(file, folder) for file in chosen]
        mean = sum(seconds) / len(seconds)
        print(f'{name}: {len(chosen)} of {len(files)} files, {mean:.1f} s '
              f'each ({min(seconds):.1f} to {max(seconds):.1f})')
        total += mean * len(files)
    return total


def together(folder: Path) -> float:
    """CPU seconds of the joined files."""
    sources: list[str] = [
        str(path) for name in SAMPLE
        for path in sorted((folder / OPERATORS / name).glob('*.cpp'))
    ]
    os.chdir(folder)
    total = 0.
    for file in joined(sources, [], [str(folder / OPERATORS / 'common')]):
        seconds = compile_file(Path(file), folder)
        print(f'{Path(file).name}: {seconds:.1f} s')
        total += seconds
    return total


def main() -> None:
    """Print both sides and their ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--source', type=Path, required=True)
    parser.add_argument(
        '--whole', action='store_true', help='compile all files one by one')
    args = parser.parse_args()
    folder = args.source.resolve()
    if not (folder / OPERATORS).is_dir():
        parser.error(f'--source: expected {OPERATORS} in {folder}')
    before = 2 * one_by_one(folder, args.whole)
    after = together(folder)
    print(f'one by one, twice: {before:.0f} s '
          f'({"measured" if args.whole else "extrapolated"}); joined: '
          f'{after:.0f} s; 1/{before / after:.1f}')


if __name__ == '__main__':
    main()
