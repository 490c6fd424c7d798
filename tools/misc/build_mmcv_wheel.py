# Licensed under the Apache License, Version 2.0.
"""Build a wheel of mmcv from the source in this folder, with joined files.

Runs mmcv's own ``setup.py``, whose extension gets the files that are written
to ``joined/`` here in place of its sources.
"""
import argparse
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

from joined_sources import groups, joined_text

FOLDER = Path('joined')
# Of C++, two files of mmcv have most of it, and compile side by side. nvcc
# takes longer for the code itself.
MOST_LINES = {'.cpp': 5000, '.cu': 1500}


def joined(sources: list[str], separate: list[str],
           include_dirs: list[str]) -> list[str]:
    """Write what is compiled in place of the sources.

    Args:
        sources (list[str]): Paths of the extension's sources.
        separate (list[str]): Names of joined files that did not compile;
            their sources are compiled one by one.
        include_dirs (list[str]): Folders with headers of mmcv.

    Returns:
        list[str]: Paths of the files to compile.
    """
    FOLDER.mkdir(exist_ok=True)
    files = []
    for suffix, most_lines in MOST_LINES.items():
        paths = [Path(path) for path in sources if path.endswith(suffix)]
        folders = [Path(folder) for folder in include_dirs]
        for number, group in enumerate(groups(paths, folders, most_lines)):
            name = f'{suffix[1:]}_{number}'
            if len(group) == 1 or name in separate:
                files += map(str, group)
                continue
            file = FOLDER / f'{name}{suffix}'
            text = joined_text(group, folders)
            # A newer file would be compiled again.
            if not file.exists() or file.read_text() != text:
                file.write_text(text)
            files.append(str(file))
    return files + [
        path for path in sources if not path.endswith(tuple(MOST_LINES))
    ]


def with_joined_sources(extension: Callable, separate: list[str]) -> Callable:
    """Wrap ``CppExtension`` or ``CUDAExtension``."""

    def build(name, sources, *args, include_dirs=(), **kwargs):
        # torch adds its own folders to the list that it is given.
        own = list(include_dirs)
        return extension(
            name,
            joined(sorted(sources), separate, own),
            *args,
            include_dirs=own,
            **kwargs)

    return build


def main() -> None:
    """Run ``setup.py bdist_wheel``, which compiles once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--wheel-dir', required=True)
    parser.add_argument(
        '--separate',
        nargs='*',
        default=[],
        help='joined files, by name, whose sources are compiled one by one')
    args = parser.parse_args()
    from torch.utils import cpp_extension
    cpp_extension.CppExtension = with_joined_sources(
        cpp_extension.CppExtension, args.separate)
    cpp_extension.CUDAExtension = with_joined_sources(
        cpp_extension.CUDAExtension, args.separate)
    # Not `build bdist_wheel`: that compiles everything a second time, as
    # torch adds its flags to the extension once more.
    sys.argv = ['setup.py', 'bdist_wheel', '--dist-dir', args.wheel_dir]
    sys.path.insert(0, '')
    runpy.run_path('setup.py', run_name='__main__')


if __name__ == '__main__':
    main()
