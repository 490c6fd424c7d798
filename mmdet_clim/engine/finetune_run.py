# Licensed under the Apache License, Version 2.0.
"""A fine-tuning from its command to the detector that it leaves."""
import copy
import json
import math
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import (
    broadcast_object_list,
    get_world_size,
    init_dist,
    is_distributed,
    is_main_process,
)
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from torch import distributed

from mmdet_clim.apis.vocabulary import check_prompt, reads_texts
from mmdet_clim.datasets.box_formats import OwnBoxes, read_boxes
from mmdet_clim.datasets.preparation.counts import describe_summary
from mmdet_clim.datasets.preparation.files import whole_file, write_json
from mmdet_clim.datasets.preparation.own_captions import (
    prepare_image_text,
    read_synonyms,
)
from mmdet_clim.datasets.preparation.own_tags import tagged_images
from mmdet_clim.datasets.vocabulary import Vocabulary, build_vocabulary
from mmdet_clim.registry import MODELS
from mmdet_clim_cli.mistakes import one_line

from .checkpoints import (
    load_weights,
    read_checkpoint,
    save_atomically,
    strip_state_dict,
)
from .config_checks import check_files, check_options, named_in_config
from .cpu_processes import prepare_cpu_processes
from .finetune_data import (
    boxed_names,
    boxes_digest,
    content_digest,
    folder_digest,
    write_lines,
)
from .finetune_grounding import reads_prompts
from .finetuning import (
    OwnData,
    default_iterations,
    finetune_config,
    plain_config,
)
from .fingerprint import open_run, read_fingerprint, run_fingerprint
from .hooks.atomic_checkpoint_hook import damage_of
from .runner import begin_with, build_runner

#: Folder of the log of the evaluation, in the work dir.
EVALUATION = 'evaluation'
OUTPUTS = ('detector.py', 'detector.pth', 'metrics.json')
#: Names that a grounding detector reads at a time, as mmdet's own for LVIS.
CHUNK = 40
# Settings of a config that the command has options of its own for, and those
# of checkpoints that have to stay.
_OPTIONS = dict(
    work_dir='--work-dir', launcher='--launcher', load_from='--checkpoint')
_KEPT = tuple(f'default_hooks.checkpoint.{key}'
              for key in ('out_dir', 'filename_tmpl', 'by_epoch', 'save_last'))
#: Preparing captions may take the first process hours.
PATIENCE = timedelta(days=7)


@dataclass
class Plan:
    """What a run is to do, the same in all its processes.

    Args:
        train (Config): Of the training.
        plain (Config): Of the detector that is left.
        finished (bool): Whether there is nothing left to do.
        last (Path, optional): The checkpoint that it goes on from.
        in_parts (bool): Whether a grounding detector reads the names a few at
            a time.
    """

    train: Config
    plain: Config
    finished: bool = False
    last: Optional[Path] = None
    in_parts: bool = False


@dataclass
class Inputs:
    """What the files of the options hold, checked.

    Args:
        vocabulary (Vocabulary): The classes.
        tagged (list[dict], optional): Images with tags, without captions.
        boxes, val_boxes (OwnBoxes, optional): Boxes.
    """

    vocabulary: Vocabulary
    tagged: Optional[List[dict]]
    boxes: Optional[OwnBoxes]
    val_boxes: Optional[OwnBoxes]


@dataclass
class Finetuning:
    """The options of ``tools/finetune.py``, and what it does with them.

    Args:
        detector (Path): Config of a detector that classifies by text.
        checkpoint (Path): Its weights.
        images (Path): Folder of the captioned images.
        vocabulary (Path): The class names.
        captions (Path, optional): File of captions; a text beside each image
            if not given.
        tags (Path, optional): Instead of captions: a table of class names,
            or ``folders``; see ``tagged_images``.
        synonyms (Path, optional): JSON of other words for classes.
        boxes, val_boxes (Path, optional): Boxes to train and to evaluate on,
            of any layout that ``read_boxes`` takes.
        box_images, val_images (Path, optional): Folders of their images.
        work_dir (Path): Of this run alone.
        iterations (int, optional): Of the training; from the number of
            captioned images if not given.
        batch_size (int): Samples of a step of one process.
        lr (float): Learning rate.
        lr_mult (dict): Part of a weight's name to the factor of its rate.
        freeze (list[str]): Parts that stay as they are.
        seed (int): Of all randomness.
        workers (int): Processes that prepare captions, and that load data.
        ema (bool): Mean of the weights over the last tenth.
        amp (bool): Mixed precision.
        cfg_options (dict): Settings that override the training's config.
        launcher (str): Who started the processes of a distributed run.
        overwrite (bool): Begin anew whatever the work dir holds.
    """

    detector: Path
    checkpoint: Path
    images: Path
    vocabulary: Path
    captions: Optional[Path] = None
    tags: Optional[Path] = None
    synonyms: Optional[Path] = None
    boxes: Optional[Path] = None
    val_boxes: Optional[Path] = None
    box_images: Optional[Path] = None
    val_images: Optional[Path] = None
    work_dir: Path = Path('work_dirs/finetune')
    iterations: Optional[int] = None
    batch_size: int = 8
    lr: float = 1e-4
    lr_mult: Mapping[str, float] = field(default_factory=dict)
    freeze: Sequence[str] = ()
    seed: int = 0
    workers: int = 2
    ema: bool = False
    amp: bool = False
    cfg_options: Optional[Dict[str, Any]] = None
    launcher: str = 'none'
    overwrite: bool = False

    def run(self) -> None:
        """Prepare, train, leave a plain detector, and evaluate it.

        What is done is not done again; a run that was stopped goes on.

        Raises:
            ValueError, TypeError, KeyError, OSError: If an input is wrong.
            FileExistsError: If the work dir holds another run.
            RuntimeError: If another process has it, or the evaluation of the
                detector fails, which is written by then.
        """
        processes = _join_processes(self.launcher)
        with ExitStack() as stack:
            plan = _on_first_process(lambda: self._begin(stack))
            if not plan.finished:
                if plan.last != self._final(plan):
                    self._train(plan, processes)
                _on_first_process(lambda: self._write(plan))
                if plan.plain.test_evaluator is not None:
                    self._evaluate(plan, processes)
        if is_main_process():
            print_log(self._describe(plan))

    def _begin(self, stack: ExitStack) -> Plan:
        """Check all inputs, take the work dir, and prepare the data."""
        inputs = self._inputs()
        try:
            cfg = Config.fromfile(self.detector)
        except OSError as error:
            raise ValueError(
                f'--detector: {self.detector}: {error}') from error
        data = self._data(inputs)
        # Its length is known when the captions are.
        plan = Plan(
            self._train_config(
                cfg, data, 1 if self.iterations is None else self.iterations),
            plain_config(cfg, data))
        self._check_weights(plan)
        before = wanted = self._fingerprint(cfg, inputs)
        if not self.overwrite:
            before = read_fingerprint(self.work_dir)
            if before is None:
                self._check_not_taken()
        plan.finished = stack.enter_context(
            open_run(self.work_dir, wanted, self.overwrite))
        if plan.finished:
            return plan
        # Captions of a run that another one replaces go with it.
        replace = self.overwrite or before not in (None, wanted)
        count = self._prepare(inputs, data, replace)
        if self.iterations is None:
            length = default_iterations(count,
                                        self.batch_size * get_world_size(),
                                        data.boxes is not None,
                                        not reads_prompts(plan.plain))
            plan.train = self._train_config(cfg, data, length)
            self._read_in_parts(plan)
        _write_config(plan.train, self.work_dir / 'finetune.py')
        plan.last = self._last_checkpoint()
        if plan.last is None:
            # Of the run that this one replaces.
            for name in OUTPUTS:
                (self.work_dir / name).unlink(missing_ok=True)
            shutil.rmtree(self.work_dir / EVALUATION, ignore_errors=True)
        return plan

    def _inputs(self) -> Inputs:
        """Read and check words, tags and boxes."""
        vocabulary = build_vocabulary(self.vocabulary)
        tagged = None
        if self.tags is not None:
            tagged = tagged_images(self.tags, self.images, vocabulary.names)
        inputs = Inputs(
            vocabulary, tagged,
            self._boxes('--boxes', self.boxes, self.box_images, 'train'),
            self._boxes('--val-boxes', self.val_boxes, self.val_images
                        or self.box_images, 'val'))
        boxed_names(
            '--val-boxes', inputs.val_boxes, vocabulary.names, need_all=True)
        return inputs

    def _data(self, inputs: Inputs) -> OwnData:
        """Where the data is, or will be when it is prepared."""
        boxes, val_boxes = inputs.boxes, inputs.val_boxes
        names = inputs.vocabulary.names
        return OwnData(
            self.work_dir / 'captions.json',
            self.images,
            names,
            boxes and (boxes.file or self.work_dir / 'boxes.json'),
            val_boxes and (val_boxes.file or self.work_dir / 'val_boxes.json'),
            boxes and boxes.images,
            val_boxes and val_boxes.images,
            base_names=boxed_names('--boxes', boxes, names))

    def _prepare(self, inputs: Inputs, data: OwnData, replace: bool) -> int:
        """Write the data as it is trained on, and count captioned images."""
        source = self.captions
        if inputs.tagged is not None:
            source = self.work_dir / 'tags.jsonl'
            write_lines(source, inputs.tagged)
        summary, _ = prepare_image_text(
            str(source or self.images),
            data.captions,
            vocabulary=inputs.vocabulary,
            synonyms=self.synonyms and read_synonyms(self.synonyms),
            images=self.images if source else None,
            workers=max(1, self.workers),
            overwrite=replace)
        print_log(describe_summary(summary))
        for boxes, path in ((inputs.boxes, data.boxes), (inputs.val_boxes,
                                                         data.val_boxes)):
            if boxes and boxes.file is None:
                write_json(path, boxes.content)
        return summary['files'][data.captions.name]['images']

    def _boxes(self, option: str, source: Optional[Path],
               images: Optional[Path], split: str) -> Optional[OwnBoxes]:
        """Boxes of any layout, None where none are given."""
        if source is None:
            return None
        if images is None and source.suffix.lower() in ('.json', '.xml'):
            # Other layouts say where their images are.
            images = self.images
        return read_boxes(
            source, images, split, shown=f'{option}: ', clip=split == 'train')

    def _train_config(self, cfg: Config, data: OwnData,
                      iterations: int) -> Config:
        train = finetune_config(
            cfg,
            self.checkpoint,
            data,
            iterations,
            self.batch_size,
            self.lr,
            self.workers,
            lr_mult={
                **self.lr_mult,
                **dict.fromkeys(self.freeze, 0.0)
            },
            ema=self.ema)
        train.randomness = dict(seed=self.seed)
        if self.amp:
            if get_device() == 'cpu':
                raise ValueError('--amp: expected an accelerator, got a CPU')
            train.optim_wrapper.type = 'AmpOptimWrapper'
            train.optim_wrapper.loss_scale = 'dynamic'
        check_options(train, self.cfg_options)
        _check_what_is_kept(self.cfg_options or {})
        if self.cfg_options:
            train.merge_from_dict(self.cfg_options)
        return train

    def _check_weights(self, plan: Plan) -> None:
        """Refuse weights of another detector before hours of preparation."""
        plain = plan.plain
        check_files(plain, (), str(self.checkpoint))
        init_default_scope(plain.get('default_scope', 'mmdet'))
        with named_in_config(plain):
            detector = MODELS.build(copy.deepcopy(plain.model))
        load_weights(detector, self.checkpoint)
        weights = [name for name, _ in detector.named_parameters()]
        for part in (*self.lr_mult, *self.freeze):
            if not any(part in name for name in weights):
                known = ', '.join(name
                                  for name, _ in detector.named_children())
                raise ValueError(
                    f'--lr-mult, --freeze: {part!r} is in the name of no '
                    f'weight of {type(detector).__name__}, expected a part '
                    f'such as {known}')
        if reads_texts(detector):
            try:
                check_prompt(detector,
                             plain.test_dataloader.dataset.metainfo.classes)
            except ValueError:
                plan.in_parts = True
                self._read_in_parts(plan)

    def _read_in_parts(self, plan: Plan) -> None:
        """Have a grounding detector find names that are too many at once."""
        if not plan.in_parts:
            return
        for cfg, model in ((plan.plain, plan.plain.model),
                           (plan.train, plan.train.model.detector)):
            model.test_cfg.chunked_size = CHUNK
            for split in ('val', 'test'):
                if cfg[f'{split}_dataloader'] is not None:
                    # mmdet's limit.
                    cfg[f'{split}_dataloader'].batch_size = 1

    def _check_not_taken(self) -> None:
        """Raise if a detector would be lost of which no run is known."""
        for name in OUTPUTS:
            if (self.work_dir / name).exists():
                raise FileExistsError(
                    f'{self.work_dir / name}: is there, and nothing says of '
                    'which run. Give another --work-dir, or --overwrite to '
                    'begin anew in this one')

    def _fingerprint(self, cfg: Config, inputs: Inputs) -> dict:
        """The options, with what is in the files that they name."""
        boxes, val_boxes = inputs.boxes, inputs.val_boxes
        digests = {
            key: value and folder_digest(value, self.work_dir)
            for key, value in dict(
                images=self.images,
                box_images=boxes and boxes.images,
                val_images=val_boxes and val_boxes.images).items()
        }
        options = Config(
            dict(
                digests,
                detector=cfg.to_dict(),
                checkpoint=str(self.checkpoint),
                vocabulary=list(inputs.vocabulary.names),
                captions=self.captions and str(self.captions),
                tags=inputs.tagged and content_digest(inputs.tagged),
                synonyms=self.synonyms and str(self.synonyms),
                boxes=boxes_digest(boxes),
                val_boxes=boxes_digest(val_boxes),
                iterations=self.iterations,
                batch_size=self.batch_size,
                lr=self.lr,
                lr_mult=dict(self.lr_mult),
                freeze=list(self.freeze),
                seed=self.seed,
                workers=self.workers,
                ema=self.ema,
                amp=self.amp,
                cfg_options=self.cfg_options or {},
                processes=get_world_size()))
        # As JSON has it, as it is read again.
        return json.loads(json.dumps(run_fingerprint(options)))

    def _checkpoint_of(self, iteration: int) -> Path:
        return self.work_dir / f'iter_{iteration}.pth'

    def _final(self, plan: Plan) -> Path:
        return self._checkpoint_of(plan.train.train_cfg.max_iters)

    def _last_checkpoint(self) -> Optional[Path]:
        """The latest checkpoint that is whole."""
        iterations = sorted((int(path.stem[len('iter_'):])
                             for path in self.work_dir.glob('iter_*.pth')
                             if path.stem[len('iter_'):].isdigit()),
                            reverse=True)
        for iteration in iterations:
            path = self._checkpoint_of(iteration)
            if damage_of(path) is None:
                return path
            # Of a process that was killed while it wrote.
            path.unlink()
        return None

    def _train(self, plan: Plan, processes: Config) -> None:
        """Train to the end, from the start or from a checkpoint."""
        cfg = _for_runner(plan.train, processes, self.work_dir, 'finetune.py')
        # The detector is written before anything is evaluated.
        for split in ('val', 'test'):
            for part in ('dataloader', 'evaluator', 'cfg'):
                cfg[f'{split}_{part}'] = None
        runner = build_runner(cfg)
        if plan.last is not None:
            begin_with(runner, str(plan.last), resume=True)
        if is_main_process():
            # The runner has written it without evaluation.
            _write_config(plan.train, self.work_dir / 'finetune.py')
        runner.train()

    def _write(self, plan: Plan) -> None:
        """Leave the detector without its wrapper, config and weights."""
        trained = read_checkpoint(self._final(plan))
        text = _write_config(plan.plain, self.work_dir / 'detector.py')
        save_atomically(
            dict(
                state_dict=strip_state_dict(trained['state_dict']),
                meta=dict(
                    cfg=text,
                    dataset_meta=plan.plain.test_dataloader.dataset.metainfo.
                    to_dict())), self.work_dir / 'detector.pth')

    def _evaluate(self, plan: Plan, processes: Config) -> None:
        """Evaluate what was written, as ``tools/test.py`` would."""
        cfg = _for_runner(plan.plain, processes, self.work_dir / EVALUATION,
                          'detector.py')
        cfg.load_from, cfg.resume = str(self.work_dir / 'detector.pth'), False
        try:
            metrics = build_runner(cfg).test()
        except Exception as error:
            raise RuntimeError(
                f'{self.work_dir}/detector.pth is written; its evaluation '
                'failed, and the same command tries it again: '
                f'{type(error).__name__}: {one_line(error)}') from error
        if is_main_process():
            write_json(
                self.work_dir / 'metrics.json', {
                    key: None if math.isnan(value) else value
                    for key, value in metrics.items()
                },
                indent=1)

    def _describe(self, plan: Plan) -> str:
        """What there is now."""
        lines = [f'{self.work_dir}/detector.py, {self.work_dir}/detector.pth']
        if plan.plain.test_evaluator is not None:
            values = json.loads(
                (self.work_dir / 'metrics.json').read_text(encoding='utf-8'))
            lines.append(', '.join(
                f'{group} AP50 {_percent(values[f"ov_coco/{group}_ap50"])}'
                for group in ('base', 'novel', 'all')))
        if plan.finished:
            lines.append('was made before, complete')
        return '\n'.join(lines)


def _join_processes(launcher: str) -> Config:
    """Join the other processes of the run, where there are any.

    Returns:
        Config: What a runner's config needs for them.
    """
    # Without boxes, nothing trains what only boxes train.
    cfg = Config(dict(launcher=launcher, find_unused_parameters=True))
    prepare_cpu_processes(cfg)
    if launcher != 'none' and not is_distributed():
        init_dist(launcher)
    return cfg


def _for_runner(cfg: Config, processes: Config, work_dir: Path,
                name: str) -> Config:
    """A copy of a config, which the runner writes into the work dir."""
    return Config(
        dict(cfg.to_dict(), **processes.to_dict(), work_dir=str(work_dir)),
        # Empty, the file would be read.
        cfg_text=name,
        filename=name)


def _on_first_process(function: Callable[[], Any]) -> Any:
    """What the first process gets from a function; the others wait for it.

    Raises:
        Exception: What it raises, in the first process.
        SystemExit: Then, in the others.
    """
    group = None
    if is_distributed():
        # Not of nccl, whose waiting ends after ten minutes.
        group = distributed.new_group(backend='gloo', timeout=PATIENCE)
    outcome, error = [None, False], None
    if is_main_process():
        try:
            outcome[0] = function()
        except Exception as raised:
            outcome[1], error = True, raised
    broadcast_object_list(outcome, group=group)
    if error is not None:
        raise error
    if outcome[1]:
        # The first process says why.
        sys.exit(1)
    return outcome[0]


def _check_what_is_kept(options: Mapping[str, Any]) -> None:
    """Refuse settings without which a run could not find its checkpoints.

    Raises:
        ValueError: If ``--cfg-options`` has one.
    """
    for option in options:
        other = _OPTIONS.get(option)
        if other is not None:
            raise ValueError(f'--cfg-options {option}: give {other} instead')
        if option in _KEPT or _KEPT[0].startswith(f'{option}.'):
            raise ValueError(
                f'--cfg-options {option}: expected to stay as it is, the '
                'detector is written from WORK_DIR/iter_N.pth of the last '
                'iteration')


def _write_config(cfg: Config, path: Path) -> str:
    """Write a config, whole or not at all, and return its text."""
    text = cfg.pretty_text
    with whole_file(path) as file:
        file.write(text)
    return text


def _percent(value: Optional[float]) -> str:
    return '-' if value is None else f'{100 * value:.1f}'
