# Licensed under the Apache License, Version 2.0.
"""A fine-tuning from its command to the detector that it leaves."""
import copy
import json
import math
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

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
from torch import Tensor, distributed

from mmdet_clim.apis.vocabulary import reads_texts, set_vocabulary
from mmdet_clim.datasets.box_formats import OwnBoxes, read_boxes
from mmdet_clim.datasets.coco_annotations import read_detections
from mmdet_clim.datasets.json_files import read_json
from mmdet_clim.datasets.preparation.counts import describe_summary
from mmdet_clim.datasets.preparation.files import whole_file, write_json
from mmdet_clim.datasets.preparation.own_captions import (
    prepare_image_text,
    read_synonyms,
)
from mmdet_clim.datasets.preparation.own_tags import (
    BOXES,
    boxed_images,
    tagged_images,
)
from mmdet_clim.datasets.vocabulary import Vocabulary, build_vocabulary
from mmdet_clim.evaluation.class_thresholds import THRESHOLDS
from mmdet_clim.registry import MODELS
from mmdet_clim_cli.mistakes import one_line

from .checkpoints import (
    load_weights,
    read_checkpoint,
    save_atomically,
    strip_state_dict,
)
from .closed_set import leave_out_masks, zero_shot_start
from .config_checks import check_files, check_options, named_in_config
from .cpu_processes import prepare_cpu_processes
from .finetune_data import (
    boxed_names,
    boxes_digest,
    content_digest,
    folder_digest,
    named_as,
    write_lines,
)
from .finetune_examples import write_examples
from .finetune_keeping import (
    CHUNK,
    PICTURE,
    REPORT,
    KeptWords,
    joined_names,
    percent,
    words_to_keep,
)
from .finetune_leaves import LEAVES, Leaves
from .finetune_names import point_out_names
from .finetune_replay import replayed_boxes, replayed_tags
from .finetune_report import AFTER, BEFORE, Evaluated
from .finetuning import (
    OwnData,
    default_iterations,
    finetune_config,
    plain_config,
    sees_whole_images,
)
from .fingerprint import open_run, read_fingerprint, run_fingerprint
from .hooks.atomic_checkpoint_hook import damage_of
from .runner import begin_with, build_runner
from .weight_interpolation import interpolate

#: The AP of weights between the original's and the tuned ones.
BLEND = 'blend.json'
#: Folder of the log of the evaluation, in the work dir.
EVALUATION = 'evaluation'
OUTPUTS = ('detector.py', 'detector.pth', 'metrics.json', REPORT, THRESHOLDS,
           PICTURE, BLEND, *LEAVES.values())
#: What ``--replay`` trains on, in the work dir.
EXAMPLES = 'examples.pth'
REPLAYED_BOXES, REPLAYED_TAGS = 'replayed_boxes.json', 'replayed_tags.json'
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
    last: Path | None = None
    in_parts: bool = False


@dataclass
class Inputs:
    """What the files of the options hold, checked.

    Args:
        vocabulary (Vocabulary): The classes.
        tagged (list[dict], optional): Images with tags, without captions.
        boxes, val_boxes, examples (OwnBoxes, optional): Boxes.
    """

    vocabulary: Vocabulary
    tagged: list[dict] | None
    boxes: OwnBoxes | None
    val_boxes: OwnBoxes | None
    examples: OwnBoxes | None


@dataclass
class Finetuning:
    """The options of ``tools/finetune.py``, and what it does with them.

    Args:
        config (Path): Of a detector that classifies by text.
        checkpoint (Path): Its weights.
        images (Path): Folder of the captioned images.
        vocabulary (Path): The class names.
        captions (Path, optional): File of captions; a text beside each image
            if not given.
        tags (Path, optional): Instead of captions: a table of class names,
            or ``folders`` (see ``tagged_images``), or ``boxes``: the classes
            of the boxes.
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
        keep (list[str], optional): Words that the detector is to know as
            before; see ``words_to_keep``.
        distil (float): Weight of the original's responses to these words.
        replay (float, optional): Train on the old words that the original
            finds in the images with at least this score.
        blend (float or str): Share of the tuned weights in what is left, from
            0 to 1, or ``'auto'``.
        most_lost (float): With ``'auto'``, the points of AP50 of old words
            that may be lost.
        best (bool): Leave the best of all checkpoints, by the AP50 on
            ``val_boxes``.
        alike (float): Cosine from which on two names are pointed out.
        examples (Path, optional): Boxes that show classes, of any layout.
        example_images (Path, optional): Folder of their images.
        example_weight (float): Of what boxes show beside the name, 0 to 1.
        leave (Sequence[str]): What is left beside the detector, out of
            ``LEAVES``. It is no part of what makes a run another one.
    """

    config: Path
    checkpoint: Path
    images: Path
    vocabulary: Path
    captions: Path | None = None
    tags: Path | None = None
    synonyms: Path | None = None
    boxes: Path | None = None
    val_boxes: Path | None = None
    box_images: Path | None = None
    val_images: Path | None = None
    work_dir: Path = Path('work_dirs/finetune')
    iterations: int | None = None
    batch_size: int = 8
    lr: float = 1e-4
    lr_mult: Mapping[str, float] = field(default_factory=dict)
    freeze: Sequence[str] = ()
    seed: int = 0
    workers: int = 2
    ema: bool = False
    amp: bool = False
    cfg_options: dict[str, Any] | None = None
    launcher: str = 'none'
    overwrite: bool = False
    keep: Sequence[str] | None = None
    distil: float = 0.0
    replay: float | None = None
    blend: float | str = 1.0
    most_lost: float = 1.0
    best: bool = False
    alike: float = 0.9
    examples: Path | None = None
    example_images: Path | None = None
    example_weight: float = 0.5
    leave: Sequence[str] = tuple(LEAVES)
    _inputs_read: Inputs | None = field(init=False, repr=False, default=None)

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
        self.config, self.checkpoint = _on_first_process(
            lambda: zero_shot_start(self.config, self.checkpoint, self.work_dir
                                    ))
        with ExitStack() as stack:
            plan = _on_first_process(lambda: self._begin(stack))
            if not plan.finished:
                if plan.last != self._final(plan):
                    self._train(plan, processes)
                _on_first_process(lambda: self._write(plan))
                if plan.plain.test_evaluator is not None:
                    self._evaluate(plan, processes, AFTER)
                _on_first_process(self._measure)
            if self._compares(plan):
                self._evaluate(plan, processes, BEFORE)
            left = _on_first_process(lambda: self._leave(plan))
        if is_main_process():
            print_log('\n'.join([self._describe(plan), *left]))

    def result(self) -> dict[str, Any]:
        """What a finished run has left in its work dir.

        Returns:
            dict: ``files``, of each kind that is there its path, and
            ``metrics``, by name, empty without boxes to evaluate on.
        """
        names = dict(config='detector.py', checkpoint='detector.pth', **LEAVES)
        metrics = self.work_dir / 'metrics.json'
        return dict(
            files={
                kind: self.work_dir / name
                for kind, name in names.items()
                if (self.work_dir / name).exists()
            },
            metrics=read_json(metrics) if metrics.exists() else {})

    def _begin(self, stack: ExitStack) -> Plan:
        """Check all inputs, take the work dir, and prepare the data."""
        inputs = self._inputs_read = self._inputs()
        cfg = Config.fromfile(self.config)
        self._set_detector(cfg)
        if self._lacks_masks(inputs) and leave_out_masks(cfg):
            print_log(
                '--boxes: some boxes have no mask, so the mask heads of the '
                'detector are removed', 'current')
        old = words_to_keep(self.keep, cfg)
        # Its boxes may be of old words, too.
        named_as(inputs.val_boxes,
                 build_vocabulary(joined_names(inputs.vocabulary.names, old)))
        data = self._data(inputs)
        self._kept = KeptWords(
            cfg, self.checkpoint,
            replace(data, val_boxes=self._val_boxes(inputs)), old,
            self.work_dir, self.workers)
        self._check_means(inputs)
        if not set(data.names) & set(
                boxed_names(
                    '--val-boxes',
                    inputs.val_boxes,
                    self._kept.names,
                    need_all=True)):
            # They are of old words alone.
            data = replace(data, val_boxes=None)
        # Its length is known when the captions are.
        plan = Plan(
            self._train_config(
                cfg, self._trained_data(data, inputs),
                1 if self.iterations is None else self.iterations),
            plain_config(cfg, data))
        self._check_weights(plan)
        point_out_names(cfg, data.names, self._kept.names, self.alike)
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
        anew = self.overwrite or before not in (None, wanted)
        count = self._prepare(inputs, data, anew)
        length = self.iterations
        trained = self._trained_data(data, inputs)
        if length is None:
            length = default_iterations(
                count, self.batch_size * get_world_size(), trained.boxes
                is not None, sees_whole_images(plan.plain, self.distil))
        if inputs.examples is not None:
            data = self._with_examples(inputs.examples, data, cfg, anew)
            plan.plain = plain_config(cfg, data)
        if self.iterations is None or inputs.examples is not None:
            plan.train = self._train_config(cfg,
                                            self._trained_data(data, inputs),
                                            length)
            self._read_in_parts(plan)
        # The training needs the room.
        self._kept.release()
        _write_config(plan.train, self.work_dir / 'finetune.py')
        plan.last = self._last_checkpoint()
        if plan.last is None:
            # Of the run that this one replaces.
            for name in OUTPUTS:
                (self.work_dir / name).unlink(missing_ok=True)
            shutil.rmtree(self.work_dir / EVALUATION, ignore_errors=True)
        return plan

    def _set_detector(self, cfg: Config) -> None:
        """Give a config what ``--cfg-options`` tell of the detector.

        The original and the detector that is left are built of it, too.
        """
        options = {
            option: value
            for option, value in (self.cfg_options or {}).items()
            if option.startswith('model.detector.')
        }
        is_wrapped = 'detector' in cfg.model
        holder = Config(
            dict(
                default_scope=cfg.get('default_scope'),
                model=cfg.model if is_wrapped else dict(detector=cfg.model)))
        check_options(holder, options)
        holder.merge_from_dict(options)
        cfg.model = holder.model if is_wrapped else holder.model.detector

    def _inputs(self) -> Inputs:
        """Read and check words, tags and boxes."""
        vocabulary = build_vocabulary(self.vocabulary)
        boxes, val_boxes, examples = (
            named_as(self._boxes(*of), vocabulary)
            for of in (('--boxes', self.boxes, self.box_images,
                        'train'), ('--val-boxes', self.val_boxes,
                                   self.val_images or self.box_images, 'val'),
                       ('--examples', self.examples,
                        self.example_images or self.box_images, 'train')))
        inputs = Inputs(vocabulary, self._tagged(vocabulary, boxes), boxes,
                        val_boxes, examples)
        boxed_names('--examples', inputs.examples, vocabulary.names)
        if boxes is not None and inputs.val_boxes is not None:
            _note_shared_images(boxes, inputs.val_boxes)
        return inputs

    def _tagged(self, vocabulary: Vocabulary,
                boxes: OwnBoxes | None) -> list[dict] | None:
        """Images with class names in the place of captions."""
        if self.tags is None:
            return None
        if str(self.tags) != BOXES:
            return tagged_images(self.tags, self.images, vocabulary)
        if boxes is None:
            raise ValueError(f'--tags {BOXES}: expected --boxes, got none')
        return boxed_images(boxes.content, boxes.images, self.images,
                            vocabulary.names)

    def _check_means(self, inputs: Inputs) -> None:
        """Refuse means to keep words that have nothing to work with."""
        old = self._kept.old
        if self.replay is not None and not old:
            raise ValueError(
                '--replay: expected classes to keep (--keep), got none')
        if self.blend != 'auto':
            return
        content = inputs.val_boxes.content if inputs.val_boxes else dict(
            categories=[], annotations=[])
        names = {c['id']: c['name'] for c in content['categories']}
        if not any(names[a['category_id']] in old
                   for a in content['annotations']):
            raise ValueError(
                '--blend auto: expected --val-boxes with boxes of the classes '
                'to keep, to choose the weight by; without, give a number '
                'from 0 to 1')

    def _trained_data(self, data: OwnData, inputs: Inputs) -> OwnData:
        """What is trained on: the data, and old words where they are found."""
        if self.replay is None:
            return data
        boxed = {*self._kept.old, *data.base_names}
        return replace(
            data,
            captions=self.work_dir / REPLAYED_TAGS,
            names=self._kept.names,
            boxes=self.work_dir / REPLAYED_BOXES,
            # Its images are named from the root of the file system.
            box_images=Path('/'),
            val_images=data.image_folders[1],
            base_names=[n for n in self._kept.names if n in boxed])

    def _val_boxes(self, inputs: Inputs) -> Path | None:
        """The file of boxes to evaluate on, of new words or old ones."""
        boxes = inputs.val_boxes
        return boxes and (boxes.file or self.work_dir / 'val_boxes.json')

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
            base_names=boxed_names('--boxes', boxes, names),
            phrases=dict(zip(names, inputs.vocabulary.all_phrases)))

    def _prepare(self, inputs: Inputs, data: OwnData, anew: bool) -> int:
        """Write the data as it is trained on, and count captioned images."""
        source = self.captions
        if inputs.tagged is not None:
            source = self.work_dir / 'tags.jsonl'
            write_lines(source, inputs.tagged)
        summary, _ = prepare_image_text(
            str(source or self.images),
            data.captions,
            vocabulary=self._tagged_words(inputs),
            synonyms=self.synonyms and read_synonyms(self.synonyms),
            images=self.images if source else None,
            workers=max(1, self.workers),
            overwrite=anew)
        print_log(describe_summary(summary))
        for boxes, path in ((inputs.boxes, data.boxes),
                            (inputs.val_boxes, self._val_boxes(inputs))):
            if boxes and boxes.file is None:
                write_json(path, boxes.content)
        if self.replay is not None:
            self._replay(inputs, data, anew)
        return summary['files'][data.captions.name]['images']

    def _tagged_words(self, inputs: Inputs) -> Vocabulary:
        """The words that captions are searched for."""
        if self.replay is None:
            return inputs.vocabulary
        names = tuple(self._kept.names)
        known = dict(
            zip(inputs.vocabulary.names, inputs.vocabulary.phrases or ()))
        return Vocabulary(
            names,
            names,
            phrases=tuple(known.get(name, (name, )) for name in names))

    def _replay(self, inputs: Inputs, data: OwnData, anew: bool) -> None:
        """Have the original find old words, once."""
        file, tags = (
            self.work_dir / name for name in (REPLAYED_BOXES, REPLAYED_TAGS))
        if file.exists() and not anew:
            return
        captions = json.loads(data.captions.read_text(encoding='utf-8'))
        found = replayed_boxes(self._kept, captions, data.images, inputs.boxes,
                               self.replay)
        print_log(f'--replay: {len(found["annotations"])} boxes in '
                  f'{len(found["images"])} images')
        write_json(tags, replayed_tags(captions, found, data.images))
        write_json(file, found)

    def _with_examples(self, examples: OwnBoxes, data: OwnData, cfg: Config,
                       anew: bool) -> OwnData:
        """Have the original read the boxes that show classes, once."""
        file = self.work_dir / EXAMPLES
        if anew or not file.exists():
            count = write_examples(self._kept, examples, data.names, file)
            print_log(
                f'--examples: boxes of {count} of {len(data.names)} classes')
        data = replace(data, examples=file, example_weight=self.example_weight)
        self._kept = KeptWords(
            cfg, self.checkpoint,
            replace(
                self._kept.data,
                examples=file,
                example_weight=self.example_weight), self._kept.old,
            self.work_dir, self.workers)
        return data

    def _boxes(self, option: str, source: Path | None, images: Path | None,
               split: str) -> OwnBoxes | None:
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
            ema=self.ema,
            old_words=self._kept.old,
            distil=self.distil,
            best=self.best)
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
                    '--lr-mult, --freeze: no weight of '
                    f'{type(detector).__name__} has {part!r} in its name, '
                    f'expected a part such as {known}')
        frozen = plan.train.model.frozen
        if all(any(part in name for part in frozen) for name in weights):
            raise ValueError(
                '--freeze: expected to leave a part to train, got all '
                f'of them: {" ".join(frozen)}')
        if reads_texts(detector):
            if any(len(of) > 1 for of in self._kept.data.phrases.values()):
                print_log(
                    'vocabulary: of several phrases of a class, '
                    f'{type(detector).__name__} reads the first; captions are '
                    'searched for all', 'current', 30)
            try:
                set_vocabulary(
                    detector,
                    list(plain.test_dataloader.dataset.metainfo.classes))
            except ValueError:
                plan.in_parts = True
                self._read_in_parts(plan)

    def _lacks_masks(self, inputs: Inputs) -> bool:
        """Whether boxes are trained on of which some have no mask."""
        boxes = inputs.boxes.content['annotations'] if inputs.boxes else []
        return self.replay is not None or not all(
            box.get('segmentation') for box in boxes)

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
                    f'{self.work_dir / name}: exists, but there is no record '
                    'of the run that wrote it. Give another --work-dir, or '
                    '--overwrite to start over in this one')

    def _fingerprint(self, cfg: Config, inputs: Inputs) -> dict:
        """The options, with what is in the files that they name."""
        boxes, val_boxes = inputs.boxes, inputs.val_boxes
        digests = {
            key: value and folder_digest(value, self.work_dir)
            for key, value in dict(
                images=self.images,
                box_images=boxes and boxes.images,
                val_images=val_boxes and val_boxes.images,
                example_images=inputs.examples
                and inputs.examples.images).items()
        }
        options = Config(
            dict(
                digests,
                detector=cfg.to_dict(),
                checkpoint=str(self.checkpoint),
                vocabulary=[
                    ' | '.join(of) for of in inputs.vocabulary.all_phrases
                ],
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
                keep=self._kept.old,
                distil=self.distil,
                replay=self.replay,
                blend=self.blend,
                most_lost=self.most_lost,
                best=self.best,
                examples=boxes_digest(inputs.examples),
                example_weight=self.example_weight,
                cfg_options=self.cfg_options or {},
                processes=get_world_size()))
        # As JSON has it, as it is read again.
        return json.loads(json.dumps(run_fingerprint(options)))

    def _checkpoint_of(self, iteration: int) -> Path:
        return self.work_dir / f'iter_{iteration}.pth'

    def _final(self, plan: Plan) -> Path:
        return self._checkpoint_of(plan.train.train_cfg.max_iters)

    def _last_checkpoint(self) -> Path | None:
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
        # The detector is written before it is evaluated.
        for split in ('test', ) if self.best else ('val', 'test'):
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
        trained = read_checkpoint(self._trained_checkpoint(plan))
        tuned = strip_state_dict(trained['state_dict'])
        share = 1.0 if self.blend == 'auto' else self.blend
        if share < 1:
            tuned = interpolate(self._kept.original, tuned, share)
        self._save(plan, tuned)
        if self.blend == 'auto':
            chosen = self._kept.choose(tuned, self.most_lost)
            write_json(self.work_dir / BLEND, chosen, indent=1)
            self._save(
                plan, interpolate(self._kept.original, tuned, chosen['alpha']))

    def _trained_checkpoint(self, plan: Plan) -> Path:
        """The best checkpoint where one was chosen, or the last."""
        best = sorted(
            self.work_dir.glob('best_*.pth'),
            key=lambda path: path.stat().st_mtime)
        return best[-1] if self.best and best else self._final(plan)

    def _save(self, plan: Plan, weights: Mapping[str, Tensor]) -> None:
        """Write the plain detector."""
        text = _write_config(plan.plain, self.work_dir / 'detector.py')
        save_atomically(
            dict(
                state_dict=weights,
                meta=dict(
                    cfg=text,
                    dataset_meta=plan.plain.test_dataloader.dataset.metainfo.
                    to_dict())), self.work_dir / 'detector.pth')

    def _measure(self) -> None:
        """Compare what was written with the detector that was given."""
        if not self._kept.old:
            return
        try:
            self._kept.report(
                read_checkpoint(self.work_dir / 'detector.pth')['state_dict'])
        except Exception as error:
            raise RuntimeError(
                f'{self.work_dir}/detector.pth is written; its comparison '
                'with the original failed, and the same command tries it '
                f'again: {type(error).__name__}: {one_line(error)}') from error

    def _evaluate(self, plan: Plan, processes: Config, which: str) -> None:
        """Evaluate what was written, or what the training began with.

        As ``tools/test.py`` would. The detections of both are kept.
        """
        folder = self.work_dir / EVALUATION
        cfg = _for_runner(plan.plain, processes, folder / which, 'detector.py')
        weights = dict(
            before=self.checkpoint, after=self.work_dir / 'detector.pth')
        if is_main_process():
            print_log(f'evaluation on --val-boxes: {weights[which]}',
                      'current')
        cfg.load_from, cfg.resume = str(weights[which]), False
        cfg.test_evaluator.classwise = True
        cfg.test_evaluator.outfile_prefix = str(folder / which)
        try:
            metrics = build_runner(cfg).test()
        except Exception as error:
            raise RuntimeError(
                f'{self.work_dir}/detector.pth is written; its evaluation '
                'failed, and the same command tries it again: '
                f'{type(error).__name__}: {one_line(error)}') from error
        if not is_main_process():
            return
        metrics = {
            key: None if math.isnan(value) else value
            for key, value in metrics.items()
        }
        write_json(folder / f'{which}.json', metrics, indent=1)
        if which == AFTER:
            of_groups = {
                key: value
                for key, value in metrics.items()
                if not key.startswith('ov_coco/ap50_')
            }
            write_json(self.work_dir / 'metrics.json', of_groups, indent=1)

    def _compares(self, plan: Plan) -> bool:
        """Whether the first detector is still to be evaluated."""
        return plan.plain.test_evaluator is not None \
            and 'report' in self.leave \
            and not (self.work_dir / LEAVES['report']).exists() \
            and not (self.work_dir / EVALUATION / f'{BEFORE}.json').exists()

    def _leave(self, plan: Plan) -> list[str]:
        """Leave what is wanted beside the detector, and say what."""
        inputs = self._inputs_read
        meta = plan.plain.test_dataloader.dataset.metainfo
        has_boxes = plan.plain.test_evaluator is not None
        return Leaves(
            self.work_dir, self.images, self.checkpoint,
            build_vocabulary(
                dict(
                    names=list(meta.classes),
                    base_names=list(meta.base_classes))), self.leave,
            self.seed, [
                boxes.notes for boxes in (inputs.boxes, inputs.val_boxes)
                if boxes is not None
            ], self._evaluated if has_boxes else None).write()

    def _evaluated(self) -> Evaluated:
        """What both detectors made of the images with boxes."""
        folder = self.work_dir / EVALUATION
        boxes = self._inputs_read.val_boxes
        files = {which: folder / f'{which}' for which in (BEFORE, AFTER)}
        return Evaluated(boxes.content, boxes.images, {
            which: read_json(f'{file}.json')
            for which, file in files.items()
        }, {
            which: read_detections(f'{file}.bbox.json')
            for which, file in files.items()
        })

    def _describe(self, plan: Plan) -> str:
        """What there is now."""
        lines = [f'{self.work_dir}/detector.py, {self.work_dir}/detector.pth']
        if plan.plain.test_evaluator is not None:
            values = json.loads(
                (self.work_dir / 'metrics.json').read_text(encoding='utf-8'))
            lines.append(', '.join(
                f'{group} AP50 {percent(values[f"ov_coco/{group}_ap50"])}'
                for group in ('base', 'novel', 'all')))
        lines += self._describe_kept()
        if plan.finished:
            lines.append('already complete, nothing to do')
        return '\n'.join(lines)

    def _describe_kept(self) -> list[str]:
        """What is known of the old words."""
        lines = []
        blend, file = self.work_dir / BLEND, self.work_dir / REPORT
        if blend.exists():
            lines.append(_describe_blend(read_json(blend)))
        if not file.exists():
            return lines
        found = json.loads(file.read_text(encoding='utf-8'))
        if 'old_ap50' in found:
            lines.append('before -> after: ' +
                         ', '.join(f'{whose} classes AP50 ' + ' -> '.join(
                             percent(found[f'{group}_ap50'][when])
                             for when in ('before', 'after'))
                                   for group, whose in (('old', 'previous'),
                                                        ('new', 'your'))))
        again = found['agreement']['found_again']
        absent = found['not_named']
        agreed = 'the original detects none' if again is None else (
            f"{percent(again)} % of the original's detections are found "
            'again')
        lines.append(
            f'{len(found["old_words"])} previous classes in '
            f'{found["images"]} of your images: {agreed}; detections of your '
            'classes that no caption names: '
            f'{absent["before"]} -> {absent["after"]}')
        return lines


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


def _note_shared_images(boxes: OwnBoxes, val_boxes: OwnBoxes) -> None:
    """Say where images to evaluate on are trained on, in the report too."""
    trained, tested = ({(of.images.resolve(), image['file_name'])
                        for image in of.content['images']}
                       for of in (boxes, val_boxes))
    shared = len(trained & tested)
    if shared:
        note = (f'--val-boxes: {shared} of its {len(tested)} images are '
                'trained on, so AP is better than on new ones.')
        print_log(note, 'current', 30)
        val_boxes.notes = '; '.join(filter(None, [val_boxes.notes, note]))


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
                f'--cfg-options {option}: cannot be changed, since the '
                'detector is written from WORK_DIR/iter_N.pth of the last '
                'iteration')


def _write_config(cfg: Config, path: Path) -> str:
    """Write a config, whole or not at all, and return its text."""
    text = cfg.pretty_text
    with whole_file(path) as file:
        file.write(text)
    return text


def _describe_blend(chosen: Mapping[str, Any]) -> str:
    """What was chosen, and why no more of the tuned weights."""
    text = f'blend: {chosen["alpha"]:g} of the trained weights; AP50 of ' \
        'previous classes falls, with 95 % confidence, by at most '
    return text + ', '.join(f'{percent(point["lost_at_most"])} points at '
                            f'{point["alpha"]:g}'
                            for point in chosen['curve'][1:])
