# Licensed under the Apache License, Version 2.0.
"""Which classes of an evaluated file are base and which are novel."""
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmdet_clim.datasets import OVCocoDataset
from mmdet_clim.datasets.json_checks import typed_list
from mmdet_clim.datasets.json_files import parse_object
from mmdet_clim.datasets.ov_lvis import FREQUENCIES
from mmdet_clim.datasets.preparation.files import write_json
from mmdet_clim.datasets.text_files import read_text_bytes

GROUPS = ('base', 'novel')


def split_file(outfile_prefix: str | Path) -> Path:
    """Where a metric leaves the split of the classes that it evaluated.

    Args:
        outfile_prefix (str | Path): That of its detections.
    """
    return Path(f'{outfile_prefix}.split.json')


def write_split(outfile_prefix: str | Path,
                groups: Mapping[str, Sequence[str]]) -> None:
    """Leave the split beside the detections.

    Args:
        outfile_prefix (str | Path): That of the detections.
        groups (Mapping[str, Sequence[str]]): Class names of 'base', 'novel'.
    """
    path = split_file(outfile_prefix)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {group: list(groups[group]) for group in GROUPS})


def class_split(categories: Sequence[Mapping],
                base: Sequence[str] | None = None,
                detections: Path | None = None) -> dict[str, list[str]]:
    """The groups of the classes of a file, in its order.

    The split is, the first that there is: ``base``; the one that the metric
    left beside the detections; LVIS's ``frequency``; OV-COCO's, of a file
    that has all of its classes. A file may have COCO's names and a split of
    its own, so names alone tell nothing.

    Args:
        categories (Sequence[dict]): Of the annotations, checked.
        base (Sequence[str], optional): Names of the base classes.
        detections (Path, optional): ``*.bbox.json`` of a metric.

    Returns:
        dict[str, list[str]]: Names of 'base' and 'novel'; of 'all' where
        nothing tells the split.

    Raises:
        ValueError: If ``base`` names what is no class, or a file of the split
            is none or has none of the classes.
    """
    names = [category['name'] for category in categories]
    if base is not None:
        unknown = sorted(set(base) - set(names))
        if unknown:
            raise ValueError(f'base: expected classes of the annotations, '
                             f'{names[:20]}, got {unknown}')
        return _groups(names, base)
    if detections is not None and detections.name.endswith('.bbox.json'):
        path = split_file(str(detections)[:-len('.bbox.json')])
        if path.is_file():
            content = parse_object(read_text_bytes(path), str(path))
            listed = {
                group: typed_list(content, group, str, str(path))
                for group in GROUPS
            }
            missing = set(names) - set(listed['base']) - set(listed['novel'])
            if len(missing) == len(names):
                raise ValueError(
                    f'{path}: expected some of the classes of the '
                    f'annotations, {names[:20]}, got none of them')
            return _groups([n for n in names if n not in missing],
                           listed['base'])
    if all(c.get('frequency') in FREQUENCIES for c in categories):
        return _groups(
            names, [c['name'] for c in categories if c['frequency'] != 'r'])
    meta = OVCocoDataset.METAINFO
    if set(meta['classes']) <= set(names):
        return _groups([n for n in names if n in meta['classes']],
                       meta['base_classes'])
    return dict(all=names)


def _groups(names: Sequence[str], base: Sequence[str]) -> dict[str, list[str]]:
    known = set(base)
    return dict(
        base=[name for name in names if name in known],
        novel=[name for name in names if name not in known])
