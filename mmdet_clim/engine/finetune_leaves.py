# Licensed under the Apache License, Version 2.0.
"""What a fine-tuning leaves beside the detector."""
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from mmdet_clim.apis import CLIMInferencer, write_onnx
from mmdet_clim.datasets.json_files import read_json
from mmdet_clim.datasets.preparation.files import write_json
from mmdet_clim.datasets.vocabulary import Vocabulary
from mmdet_clim.evaluation.run_log import read_scalars
from mmdet_clim.progress import track
from mmdet_clim.visualization.report import Section, write_report
from mmdet_clim_cli.mistakes import one_line

from .checkpoints import read_checkpoint
from .finetune_keeping import PICTURE, REPORT
from .finetune_labels import propose_labels
from .finetune_report import (
    AFTER,
    BEFORE,
    Evaluated,
    curve_section,
    data_section,
    evaluation_sections,
    kept_section,
    picture_section,
)
from .safetensors_files import save_safetensors

#: What can be left, and the file that shows that it was.
LEAVES = dict(
    safetensors='detector.safetensors',
    labels='pseudo_labels.json',
    onnx='detector.onnx',
    report='report.html')
#: Least score of a proposed box, and of one that is drawn.
LEAST_SCORE = 0.3


@dataclass
class Leaves:
    """Files that others use, made of a detector that is written.

    What is there already is not made again.

    Args:
        work_dir (Path): With ``detector.py``, ``detector.pth`` and the
            prepared captions.
        images (Path): Folder of the captioned images.
        checkpoint (Path): What the training began with.
        vocabulary (Vocabulary): Its classes, and which are base.
        wanted (Sequence[str]): Out of ``LEAVES``.
        seed (int): Of the choice of images in the report.
        notes (Sequence[str]): What was left out of boxes, for the report.
        evaluated (Callable, optional): Gives what both detectors made of
            images with boxes, where there are any.
    """

    work_dir: Path
    images: Path
    checkpoint: Path
    vocabulary: Vocabulary
    wanted: Sequence[str]
    seed: int = 0
    notes: Sequence[str] = ()
    evaluated: Callable[[], Evaluated] | None = None

    def write(self) -> list[str]:
        """Write what is wanted and not there.

        Returns:
            list[str]: A line for each: its file, or why there is none.
        """
        lines = []
        for kind, name in LEAVES.items():
            path = self.work_dir / name
            if kind not in self.wanted:
                continue
            reason = None if path.exists() else self._makers[kind](path)
            lines.append(
                str(path) if reason is None else f'no {name}: '
                f'{reason}')
        return lines

    @property
    def _makers(self) -> dict[str, Callable[[Path], str | None]]:
        """Each writes a file, or says why it does not."""
        return dict(
            safetensors=self._safetensors,
            labels=self._labels,
            onnx=self._onnx,
            report=self._report)

    @cached_property
    def _find(self) -> CLIMInferencer:
        return self._inferencer(self.work_dir / 'detector.pth')

    def _inferencer(self, weights: Path) -> CLIMInferencer:
        # Not the config itself: an inferencer changes what it is given.
        return CLIMInferencer(
            str(self.work_dir / 'detector.py'),
            str(weights),
            show_progress=False)

    @cached_property
    def _captioned(self) -> Mapping[str, Any]:
        return read_json(self.work_dir / 'captions.json')

    def _safetensors(self, path: Path) -> None:
        save_safetensors(read_checkpoint(self.work_dir / 'detector.pth'), path)

    def _labels(self, path: Path) -> None:
        captioned = dict(self._captioned)
        captioned['images'] = track(captioned['images'], 'boxes proposed')
        content, counts = propose_labels(captioned, self.images,
                                         self.vocabulary.names,
                                         partial(_detect,
                                                 self._find), LEAST_SCORE)
        # Last the file that says that both are there.
        write_json(self._counts, counts, indent=1)
        write_json(path, content)
        print_log(f'{path}: {len(content["annotations"])} boxes in '
                  f'{len(content["images"])} images')

    @property
    def _counts(self) -> Path:
        return self.work_dir / 'pseudo_labels_summary.json'

    def _onnx(self, path: Path) -> str | None:
        try:
            find = CLIMInferencer(
                str(self.work_dir / 'detector.py'),
                str(self.work_dir / 'detector.pth'),
                device='cpu',
                show_progress=False)
            write_onnx(find.model, find.cfg, path)
        except (TypeError, ImportError) as error:
            # A detector that has no such graph, or no package for it.
            return one_line(error)
        return None

    def _report(self, path: Path) -> None:
        summary = read_json(self.work_dir / 'captions_summary.json')
        try:
            scalars = read_scalars(self.work_dir)
        except FileNotFoundError:
            # Logs may be removed, and --cfg-options may have none written.
            scalars = {}
        sections = [data_section(summary, self.notes), curve_section(scalars)]
        if self.evaluated is not None:
            sections += evaluation_sections(self.evaluated(), self.vocabulary,
                                            self.seed)
        else:
            find = {
                BEFORE: partial(_detect, self._inferencer(self.checkpoint)),
                AFTER: partial(_detect, self._find)
            }
            sections.append(
                picture_section(self._captioned, self.images, self.vocabulary,
                                find, LEAST_SCORE, self.seed))
        kept = self.work_dir / REPORT
        if kept.is_file():
            sections.append(
                kept_section(read_json(kept), self.work_dir / PICTURE))
        if self._counts.exists():
            counts = read_json(self._counts)
            sections.append(
                Section('Proposed boxes', [
                    'In pseudo_labels.json: of the images whose caption or '
                    'tags name a class, those with a box of it that scores '
                    f'{LEAST_SCORE:g} or more.'
                ], ('class', 'images that name it', 'with a box', 'boxes'),
                        [(c['name'], c['named'], c['found'], c['boxes'])
                         for c in counts]))
        sections.append(self._settings())
        write_report(path, 'Fine-tuning report', sections)

    def _settings(self) -> Section:
        """The words and options of the run."""
        record = read_json(self.work_dir / 'fingerprint.json')
        rows = [
            (key,
             ', '.join(map(str, value)) if isinstance(value, list) else value)
            for key, value in record['config'].items()
            if value not in (None, [], {}, '') and key not in ('detector',
                                                               'vocabulary')
        ]
        return Section('Settings',
                       [f'Words: {", ".join(self.vocabulary.names)}'],
                       ('option', ''), rows)


def _detect(find: CLIMInferencer, path: str) -> Mapping[str, Any]:
    """What a detector finds in one image."""
    return find(path)['predictions'][0]
