# Licensed under the Apache License, Version 2.0.
r"""Download published weights of detectors, and data sets.

The same command resumes an interrupted download; if a SHA-256 is published, it
is verified. Archives are unpacked.

    python tools/download.py coco
    python tools/download.py grounding_dino_swin-t_pretrain_obj365_goldg
    python tools/download.py --list mm_grounding
"""
import argparse
import os
import sys
import zipfile
from pathlib import Path

from mmdet_clim_cli.mistakes import run_command
from mmdet_clim_cli.options import Parser, add_json, print_result


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'names',
        nargs='*',
        metavar='NAME',
        help='coco, coco-annotations, lvis, cc3m, detic-..., llmdet, or a '
        'config of mmdet')
    parser.add_argument(
        '--list',
        nargs='?',
        const='',
        metavar='WORD',
        help='only list the names that contain this word')
    parser.add_argument(
        '--out-dir',
        type=Path,
        help='where to write (default: data for data sets, checkpoints for '
        'weights)')
    add_json(parser)
    args = parser.parse_args(argv)
    if bool(args.names) == (args.list is not None):
        parser.error('expected names, or --list')
    return args


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a zip, members that are there with their size apart.

    Args:
        archive (Path): The zip.
        folder (Path): Where to.

    Returns:
        int: Members that were written.

    Raises:
        ValueError: If it is no zip, or a member would leave the folder.
    """
    written = 0
    try:
        with zipfile.ZipFile(archive) as content:
            for member in content.infolist():
                path = folder / member.filename
                if not path.resolve().is_relative_to(folder.resolve()):
                    raise ValueError(f'{archive}: {member.filename!r} is not '
                                     f'below {folder}')
                if member.is_dir() or (path.is_file() and path.stat().st_size
                                       == member.file_size):
                    continue
                content.extract(member, folder)
                written += 1
    except zipfile.BadZipFile as error:
        raise ValueError(f'{archive}: {error}; remove it to fetch it '
                         'again') from error
    return written


def download(name: str, out_dir: Path | None) -> dict:
    """Fetch what has a name, and say what to do with it.

    Returns:
        dict: ``name``, ``licence`` and ``files``: of each its path, whether it
        was fetched now, and whether its checksum was compared.
    """
    from mmdet_clim.downloads import DATASETS, fetch, find_published
    found = find_published(name)
    folder = out_dir or Path('data' if found.name in
                             DATASETS else 'checkpoints')
    folder = folder / found.folder
    print(f'{found.name}: licence: {found.licence}')
    if found.advice:
        print(found.advice.format(folder=folder))
    files = []
    for url in found.urls:
        path = folder / url.rpartition('/')[2]
        fresh = fetch(url, path, found.digest(url))
        checked = bool(found.digest(url))
        files.append(dict(path=path, fetched=fresh, checked=checked))
        print(f'{path}: {"fetched" if fresh else "is there"}' +
              ('' if checked else ', no checksum is published'))
        if path.suffix == '.zip':
            print(f'{folder}: {unpack(path, folder)} files unpacked')
        elif found.config is not None:
            print(f'python tools/finetune.py --config '
                  f'{os.path.relpath(found.config)} --checkpoint {path} ...')
        elif found.name.startswith('detic'):
            print(f'python tools/checkpoints/convert_published.py {path} '
                  'converted.pth --config ...')
    return dict(name=found.name, licence=found.licence, files=files)


def main(argv: list[str] | None = None) -> None:
    """Fetch, or list."""
    args = parse_args(argv)
    # Its package takes seconds to import.
    from mmdet_clim.downloads.known import names_with
    if args.list is not None:
        names = names_with(args.list)
        if not names:
            sys.exit(f'error: --list: no name contains {args.list!r}')
        print_result(args, names, '\n'.join(names))
        return
    fetched = [download(name, args.out_dir) for name in args.names]
    print_result(args, fetched)


if __name__ == '__main__':
    run_command(main)
