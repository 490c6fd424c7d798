# Licensed under the Apache License, Version 2.0.
"""Folders of many small data sets, each with its own file and classes."""
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from terminaltables import AsciiTable

#: The key of the means in :func:`sets_metrics`.
MEAN = 'mean'
#: AP over ten IoUs and at 0.5, as fractions.
SetAP = Mapping[str, float]


class DetectionSet(NamedTuple):
    """One data set.

    Args:
        name (str): Its folder below the root.
        ann_file (Path): COCO JSON. Images are named from its folder on.
    """

    name: str
    ann_file: Path


def find_sets(
        root: str | Path, sets: Sequence[str],
        ann_files: Sequence[str]) -> tuple[list[DetectionSet], dict[str, str]]:
    """Look for data sets below a folder.

    Args:
        root (str | Path): The folder.
        sets (Sequence[str]): Patterns of folders below it, one data set each.
        ann_files (Sequence[str]): Patterns of the annotation file below the
            folder of a data set, ``**`` for any folders. The first that finds
            some counts.

    Returns:
        tuple[list[DetectionSet], dict[str, str]]: Those that are there,
        sorted by name; and name to reason of what is missing. Where a folder
        has several files, each is a data set, named by the folder and the
        first part of the path in it that differs.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If there is not one data set in it.
    """
    root = Path(root)
    sets = [sets] if isinstance(sets, str) else sets
    ann_files = [ann_files] if isinstance(ann_files, str) else ann_files
    if not root.is_dir():
        raise FileNotFoundError(f'root: {root} is not a folder')
    found: dict[str, DetectionSet] = {}
    missing: dict[str, str] = {}
    for pattern in sets:
        folders = sorted(f for f in root.glob(pattern) if f.is_dir())
        if not folders:
            missing[pattern] = f'{root / pattern} is not a folder'
        for folder in folders:
            name = folder.relative_to(root).as_posix()
            files = _annotation_files(folder, ann_files)
            if not files:
                missing[name] = (f'{folder} has none of '
                                 f'{", ".join(ann_files)}')
            for label, file in _labelled(name, folder, files):
                found[label] = DetectionSet(label, file)
    if not found:
        raise ValueError(f'root: {root}: expected data sets, found none: '
                         f'{"; ".join(list(missing.values())[:4])}')
    return sorted(found.values()), missing


def _annotation_files(folder: Path, patterns: Sequence[str]) -> list[Path]:
    for pattern in patterns:
        files = sorted(f for f in folder.glob(pattern) if f.is_file())
        if files:
            return files
    return []


def _labelled(name: str, folder: Path,
              files: Sequence[Path]) -> list[tuple[str, Path]]:
    """The files of one folder with the names of their data sets."""
    if len(files) < 2:
        return [(name, file) for file in files]
    parts = [file.relative_to(folder).parts for file in files]
    least = min(map(len, parts))
    differing = next(
        (i for i in range(least) if len({p[i]
                                         for p in parts}) == len(files)), None)
    return [('/'.join(
        (name, *(of if differing is None else of[differing:differing + 1]))),
             file) for of, file in zip(parts, files)]


def class_names(content: Mapping) -> list[str]:
    """The classes that a detector is asked for in a data set.

    All categories but groups: labelling services list the group of the
    classes as one more category (of id 0, ``supercategory`` of the others),
    and give it no box.

    Args:
        content (Mapping): A COCO file that was checked.

    Returns:
        list[str]: In the order of the ids.
    """
    boxed = {entry['category_id'] for entry in content['annotations']}
    groups = {c.get('supercategory') for c in content['categories']}
    return [
        c['name']
        for c in sorted(content['categories'], key=lambda c: c['id'])
        if c['id'] in boxed or c['name'] not in groups
        or c.get('supercategory') == c['name']
    ]


def sets_metrics(found: Mapping[str, SetAP],
                 failed: Mapping[str, str]) -> dict[str, float]:
    """One dict of what all data sets gave.

    Args:
        found (Mapping[str, Mapping[str, float]]): Name of a data set to
            ``ap`` and ``ap50``.
        failed (Mapping[str, str]): Name to reason.

    Returns:
        dict[str, float]: ``{name}/ap``, ``{name}/ap50``, their means over
        the data sets that were evaluated under ``mean/``, and how many those
        are, ``evaluated``, and were to be, ``expected``.
    """
    metrics = {
        f'{name}/{key}': value
        for name, ap in found.items()
        for key, value in ap.items()
    }
    for key in ('ap', 'ap50'):
        values = [ap[key] for ap in found.values()]
        metrics[f'{MEAN}/{key}'] = (
            sum(values) / len(values) if values else float('nan'))
    metrics.update(evaluated=len(found), expected=len(found) + len(failed))
    return metrics


def sets_table(found: Mapping[str, SetAP], failed: Mapping[str, str],
               sizes: Mapping[str, tuple[int, int]]) -> str:
    """The table of all data sets, AP in percent.

    Args:
        found (Mapping[str, Mapping[str, float]]): See :func:`sets_metrics`.
        failed (Mapping[str, str]): As there.
        sizes (Mapping[str, tuple[int, int]]): Name to images and classes.
    """
    metrics = sets_metrics(found, failed)

    def percent(name: str) -> list[str]:
        return [f'{100 * metrics[f"{name}/{key}"]:.1f}'
                for key in ('ap', 'ap50')]  # yapf: disable

    rows: list[Sequence[str | None]] = [('data set', 'images', 'classes', 'AP',
                                         'AP50')]
    for name in sorted({*found, *failed}):
        rows.append((name, *map(str, sizes[name]),
                     *percent(name)) if name in found else (name, '', '',
                                                            'failed', ''))
    rows.append((f'mean of {len(found)} of {len(found) + len(failed)}', '', '',
                 *percent(MEAN)))
    lines = [AsciiTable(rows).table]
    lines += [f'{name}: {reason}' for name, reason in sorted(failed.items())]
    return '\n'.join(lines)
