# Licensed under the Apache License, Version 2.0.
"""The test of one detector on many data sets with classes of their own."""
import copy
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet.models.detectors.glip import clean_label_name
from mmengine.dist import all_gather_object
from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, TestLoop
from torch.utils.data import DataLoader

from mmdet_clim.datasets import Vocabulary
from mmdet_clim.datasets.ov_lvis import class_name
from mmdet_clim.evaluation import OVCocoMetric
from mmdet_clim.evaluation.detection_sets import (
    DetectionSet,
    class_names,
    find_sets,
    sets_metrics,
    sets_table,
)
from mmdet_clim.models.detectors import CLIMDetector
from mmdet_clim.registry import LOOPS
from mmdet_clim_cli.mistakes import one_line

#: What a data set that is broken raises.
BROKEN = (OSError, ValueError)
#: What a grounding detector is told with an image.
PROMPT_KEYS = ('text', 'custom_entities', 'caption_prompt')


@LOOPS.register_module()
class DetectionSetsLoop(BaseLoop):
    """Test a detector without training on each data set of a folder.

    Each data set has a COCO file, whose images lie beside it, and whose
    categories are the classes that the detector is asked for: by its
    vocabulary where it classifies by text, with each image where it reads
    texts. A data set that is missing or broken is named with the reason, and
    the others are evaluated; the means are over those. AP is COCO's, by
    :class:`~mmdet_clim.evaluation.OVCocoMetric`.

    Args:
        runner (Runner): Of this test.
        dataloader (dict): Of the config's own test data: batch size, workers
            and pipeline are taken from it.
        evaluator: Not used; each data set has its own.
        root (str): The folder.
        sets (Sequence[str]): Patterns of the data sets' folders below it.
        ann_files (Sequence[str]): Patterns of the annotation file below the
            folder of a data set; the first that finds some counts.
        prompts (Mapping[str, Mapping[str, dict]], optional): Data set to
            class to its text, as mmdet's ``caption_prompt``: ``name``, in the
            place of the class's, ``prefix`` and ``suffix``.
        outfile_prefix (str, optional): Keeps the detections of each data set
            in ``{outfile_prefix}.{name}.bbox.json``, slashes of the name
            replaced by ``_``.
        fp16 (bool): As in MMEngine.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it has no data set, or ``prompts`` names none that was
            asked for; when run, if not one of them could be evaluated.
        TypeError: When run, if the detector neither classifies by text nor
            reads one.
    """

    def __init__(self,
                 runner,
                 dataloader: DataLoader | dict,
                 evaluator: Evaluator | dict | list | None = None,
                 *,
                 root: str,
                 sets: Sequence[str] = ('*', ),
                 ann_files: Sequence[str],
                 prompts: Mapping[str, Mapping[str, dict]] | None = None,
                 outfile_prefix: str | None = None,
                 fp16: bool = False) -> None:
        # Built are those of the data sets, one after the other.
        super().__init__(runner, None)
        self._template = dataloader
        self.evaluator = Evaluator([])
        self._sets, self.failed = find_sets(root, sets, ann_files)
        self._prompts = prompts or {}
        unknown = set(self._prompts) - {of.name
                                        for of in self._sets} - set(
                                            self.failed)
        if unknown:
            raise ValueError(f'prompts: expected names of {root}, got '
                             f'{sorted(unknown)}')
        self._outfile_prefix = outfile_prefix
        self._fp16 = fp16
        model = runner.model.module if is_model_wrapper(
            runner.model) else runner.model
        # The wrapper is for training.
        self._detector: Any = model.detector if isinstance(
            model, CLIMDetector) else model
        self._chunked_size = (getattr(self._detector, 'test_cfg', None)
                              or {}).get('chunked_size', -1)

    def run(self) -> dict[str, float]:
        """Test on all of them.

        Returns:
            dict[str, float]: See
            :func:`~mmdet_clim.evaluation.detection_sets.sets_metrics`.
        """
        found: dict[str, dict[str, float]] = {}
        sizes: dict[str, tuple[int, int]] = {}
        for of in self._sets:
            try:
                loop = self._loop_of(of)
                found[of.name] = self._test(of, loop)
                sizes[of.name] = (len(loop.dataloader.dataset),
                                  len(loop.dataloader.dataset.metainfo[
                                      'classes']))  # yapf: disable
            except BROKEN as error:
                self.failed[of.name] = one_line(error)
                print_log(f'{of.name} is skipped: {self.failed[of.name]}',
                          'current', logging.WARNING)
        if not found:
            reasons = [f'{n}: {e}' for n, e in list(self.failed.items())[:4]]
            raise ValueError('test_cfg.sets: none could be evaluated: '
                             f'{"; ".join(reasons)}')
        print_log(f'\n{sets_table(found, self.failed, sizes)}', 'current')
        metrics = sets_metrics(found, self.failed)
        for hook in ('before_test', 'before_test_epoch'):
            self.runner.call_hook(hook)
        self.runner.call_hook('after_test_epoch', metrics=metrics)
        self.runner.call_hook('after_test')
        return metrics

    def _loop_of(self, of: DetectionSet) -> TestLoop:
        """MMEngine's loop on one data set, of whose classes it asks."""
        prefix = self._outfile_prefix and (
            f'{self._outfile_prefix}.{of.name.replace("/", "_")}')
        metric = OVCocoMetric(str(of.ann_file), outfile_prefix=prefix)
        names = class_names(metric.ground_truth)
        prompts = dict(self._prompts.get(of.name, {}))
        unknown = set(prompts) - set(names)
        if unknown:
            raise ValueError(f'{of.ann_file}: prompts: expected some of '
                             f'{names}, got {sorted(unknown)}')
        dataloader = copy.deepcopy(self._template)
        by_prompt = self._ask([_text(n, prompts.get(n, {})) for n in names],
                              dataloader)
        pipeline = _pipeline(dataloader['dataset'])
        dataset = dict(
            type='mmdet_clim.CheckedCocoDataset',
            ann_file=str(of.ann_file),
            data_prefix=dict(img=str(of.ann_file.parent)),
            metainfo=dict(
                classes=tuple(names), base_classes=(),
                novel_classes=tuple(names)),
            test_mode=True,
            pipeline=pipeline)  # yapf: disable
        if by_prompt:
            dataset['return_classes'] = True
            dataset['caption_prompt'] = {
                clean_label_name(name): dict(text)
                for name, text in prompts.items()
            } or None
            pack = pipeline[-1]
            keys = tuple(pack.get('meta_keys', _META_KEYS))
            pack['meta_keys'] = (*keys,
                                 *(key
                                   for key in PROMPT_KEYS if key not in keys))
        dataloader['dataset'] = dataset
        return TestLoop(self.runner, dataloader, Evaluator([metric]),
                        self._fp16)

    def _ask(self, texts: list[str], dataloader: dict) -> bool:
        """Have the detector look for these; whether it reads a prompt."""
        # They import this package.
        from mmdet_clim.apis.vocabulary import reads_texts, set_vocabulary

        from .finetune_keeping import CHUNK
        vocabulary = Vocabulary(tuple(texts), tuple(texts))
        if not reads_texts(self._detector):
            set_vocabulary(self._detector, vocabulary)
            return False
        options = self._detector.test_cfg
        options.chunked_size = self._chunked_size
        try:
            set_vocabulary(self._detector, vocabulary)
        except ValueError:
            options.chunked_size = CHUNK
            set_vocabulary(self._detector, vocabulary)
        if options.chunked_size > 0:
            # mmdet's limit.
            dataloader['batch_size'] = 1
        return True

    @torch.no_grad()
    def _test(self, of: DetectionSet, loop: TestLoop) -> dict[str, float]:
        """AP of one data set."""
        runner = self.runner
        # Hooks look for these.
        self.dataloader, self.evaluator = loop.dataloader, loop.evaluator
        runner.call_hook('before_test')
        runner.call_hook('before_test_epoch')
        runner.model.eval()
        reason = None
        try:
            for number, batch in enumerate(loop.dataloader):
                loop.run_iter(number, batch)
        except BROKEN as error:
            reason = one_line(error)
        # All ranks go on to the next one, or none.
        reasons = [r for r in all_gather_object(reason) if r is not None]
        metrics = {}
        if not reasons:
            whole = loop.evaluator.evaluate(len(loop.dataloader.dataset))
            metrics = dict(
                ap=whole['ov_coco/all_map'], ap50=whole['ov_coco/all_ap50'])
        runner.call_hook(
            'after_test_epoch',
            metrics={
                f'{of.name}/{key}': value
                for key, value in metrics.items()
            })
        runner.call_hook('after_test')
        if not reasons and math.isnan(metrics['ap']):
            reasons = [f'{of.ann_file}: expected boxes that are not crowds']
        if reasons:
            raise ValueError(reasons[0])
        return metrics


# Those of mmdet's PackDetInputs.
_META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor',
              'flip', 'flip_direction')


def _text(name: str, prompt: Mapping[str, str]) -> str:
    """What a detector is asked for in the place of a class's name."""
    return ''.join((prompt.get('prefix', ''), prompt.get('name')
                    or class_name(name), prompt.get('suffix', '')))


def _pipeline(dataset: Mapping) -> list[dict]:
    """The pipeline of a config's test data, also within wrappers."""
    while 'pipeline' not in dataset and 'dataset' in dataset:
        dataset = dataset['dataset']
    if not dataset.get('pipeline'):
        raise ValueError('test_dataloader.dataset: expected a pipeline, got '
                         f'{sorted(dataset)}')
    return [dict(step) for step in dataset['pipeline']]
