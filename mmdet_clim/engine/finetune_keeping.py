# Licensed under the Apache License, Version 2.0.
"""What a fine-tuned detector still knows of the words it came with."""
import copy
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import torch
from mmdet.datasets import CocoDataset, LVISV1Dataset
from mmdet.structures import SampleList
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.evaluator import Evaluator
from mmengine.logging import print_log
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmdet_clim.apis.vocabulary import reads_texts, set_vocabulary
from mmdet_clim.datasets.box_formats import OwnBoxes
from mmdet_clim.datasets.class_names import compared_name
from mmdet_clim.datasets.image_files import read_image_file
from mmdet_clim.datasets.json_files import read_json
from mmdet_clim.datasets.preparation.files import write_json
from mmdet_clim.datasets.vocabulary import (
    Vocabulary,
    build_vocabulary,
    vocabulary_of_words,
)
from mmdet_clim.evaluation.agreement import (
    agreement,
    disagreement,
    of_labels,
    unnamed_detections,
)
from mmdet_clim.evaluation.class_thresholds import (
    THRESHOLDS,
    class_thresholds,
)
from mmdet_clim.evaluation.lost_ap import LostAP
from mmdet_clim.files import atomic_path
from mmdet_clim.registry import DATASETS, MODELS
from mmdet_clim.visualization.detections import draw_detections

from .checkpoints import load_weights
from .config_checks import named_in_config
from .finetuning import OwnData, classifying_parts, plain_config
from .runner import only_in_files
from .weight_interpolation import ALPHAS, choose_point, interpolate

#: Vocabularies that ``--keep`` knows by a word.
KNOWN = dict(coco=CocoDataset, lvis=LVISV1Dataset)
#: Names that a grounding detector reads at a time, as mmdet's own for LVIS.
CHUNK = 40
#: Detections that count where no threshold was chosen, as mmdet draws them.
SCORE = 0.3
#: Captioned images that both detectors look at, and those that are drawn.
IMAGES = 100
PICTURES = 6
#: What is written to the work dir.
REPORT, PICTURE = 'kept.json', 'kept.png'
LISTED = 'looked_at.json'


def percent(value: float | None) -> str:
    """A share in percent, for a message."""
    return '-' if value is None else f'{100 * value:.1f}'


def own_words(cfg: Config) -> Vocabulary:
    """The vocabulary of a config's detector, as it is.

    Args:
        cfg (Config): Of a detector, wrapped or not.

    Raises:
        ValueError: If its classes can not be told.
    """
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    owner = next(classifying_parts(cfg.model), None)
    if owner is not None:
        return build_vocabulary(owner.vocabulary)
    dataset = cfg.test_dataloader.dataset
    meta = dataset.get('metainfo') or {}
    if 'classes' not in meta:
        kind = dataset.type
        found = DATASETS.get(kind) if isinstance(kind, str) else kind
        meta = getattr(found, 'METAINFO', None) or {}
    if not meta.get('classes'):
        raise ValueError(
            '--keep: the config of the detector does not list its classes '
            '(test_dataloader.dataset); expected their names, or coco, lvis '
            'or none')
    names = list(meta['classes'])
    return build_vocabulary(
        dict(names=names, base_names=list(meta.get('base_classes', names))))


def words_to_keep(words: Sequence[str] | None, cfg: Config) -> list[str]:
    """What ``--keep`` stands for.

    Args:
        words (Sequence[str], optional): ``['none']``; ``['all']``, the
            detector's vocabulary; ``['coco']``, ``['lvis']``; or names or a
            file of them. Without it, those names of the detector's
            vocabulary that it was trained on boxes of.
        cfg (Config): Of the detector that the training begins with.

    Raises:
        ValueError, FileNotFoundError: If they are no names.
    """
    if words is None:
        return list(own_words(cfg).base_names)
    if len(words) == 1:
        word = words[0].strip().lower()
        if word == 'none':
            return []
        if word == 'all':
            return list(own_words(cfg).names)
        if word in KNOWN:
            return [n.strip() for n in KNOWN[word].METAINFO['classes']]
    try:
        return list(vocabulary_of_words(words).names)
    except (ValueError, FileNotFoundError) as error:
        text = str(error).partition('vocabulary: ')
        raise type(error)(f'--keep: {text[2] or text[0]}') from error


def joined_names(new: Sequence[str], old: Sequence[str]) -> list[str]:
    """New names, then the old ones that are not among them.

    Args:
        new (Sequence[str]): The user's vocabulary.
        old (Sequence[str]): The words to keep. Case and white space tell no
            two names apart.
    """
    known = {compared_name(name) for name in new}
    return [*new, *(name for name in old if compared_name(name) not in known)]


class KeptWords:
    """Runs the original detector and others of its kind on the same images.

    The detector has the new and the old words at once, as the ones are often
    taken for the others.

    Args:
        cfg (Config): Of the detector that the training begins with.
        checkpoint (Path): Its weights.
        data (OwnData): The user's.
        old (Sequence[str]): The words to keep; may be empty.
        work_dir (Path): Where to write to.
        workers (int): Processes that load images.
    """

    def __init__(self, cfg: Config, checkpoint: Path, data: OwnData,
                 old: Sequence[str], work_dir: Path, workers: int) -> None:
        self.names = joined_names(data.names, old)
        wanted = {compared_name(name) for name in old}
        self.old = [
            name for name in self.names if compared_name(name) in wanted
        ]
        self.new = list(data.names)
        self.data = data
        self.checkpoint = checkpoint
        self.work_dir = work_dir
        self.workers = workers
        self.cfg = plain_config(
            cfg,
            OwnData(
                data.captions,
                data.images,
                self.names,
                val_boxes=data.val_boxes,
                box_images=data.box_images,
                val_images=data.val_images,
                base_names=self.old,
                phrases=data.phrases,
                examples=data.examples,
                example_weight=data.example_weight))
        self._read_in_parts = False

    @property
    def has_boxes(self) -> bool:
        """Whether there are boxes to evaluate on."""
        return self.data.val_boxes is not None

    @cached_property
    def model(self) -> nn.Module:
        """The detector, with the weights that it came with."""
        init_default_scope(self.cfg.get('default_scope', 'mmdet'))
        with named_in_config(self.cfg):
            model = MODELS.build(copy.deepcopy(self.cfg.model))
        load_weights(model, self.checkpoint)
        if reads_texts(model):
            try:
                set_vocabulary(model, self.names)
            except ValueError:
                model.test_cfg.chunked_size = CHUNK
                set_vocabulary(model, self.names)
                self._read_in_parts = True
        return model.to(get_device()).eval()

    @cached_property
    def original(self) -> dict[str, Tensor]:
        """The weights that it came with, by name, on the CPU."""
        # The model may have others by now.
        self.__dict__.pop('model', None)
        return {
            name: value.cpu().clone()
            for name, value in self.model.state_dict().items()
        }

    def release(self) -> None:
        """Drop the detector, which is built again when it is needed."""
        self.__dict__.pop('model', None)
        self.__dict__.pop('original', None)

    def average_precision(
            self, weights: Mapping[str, Tensor]) -> tuple[dict, list[dict]]:
        """AP of old and new words on the boxes to evaluate on.

        Args:
            weights (Mapping[str, Tensor]): By name.

        Returns:
            tuple[dict, list]: ``old_ap50``, ``new_ap50`` and ``all_ap50`` as
            fractions, None where no class of the group has boxes, and
            ``classes`` with the AP50 of each that has; and of each image its
            id ``image``, ``found`` and ``truth``.
        """
        loader = self._loader(self.cfg.test_dataloader)
        evaluator = Evaluator([dict(self.cfg.test_evaluator, classwise=True)])
        evaluator.dataset_meta = loader.dataset.metainfo
        kept = []
        for batch, samples in self._run(weights, loader):
            evaluator.process(samples, batch)
            kept += [
                dict(
                    image=sample.img_id,
                    found=sample.pred_instances.to('cpu'),
                    truth=boxes_of_image(loader.dataset,
                                         len(kept) + place))
                for place, sample in enumerate(samples)
            ]
        # Its tables do not say which weights they are of.
        with only_in_files():
            metrics = evaluator.evaluate(len(loader.dataset))
        classes = 'ov_coco/ap50_'
        values = {
            ours: _number(metrics[f'ov_coco/{theirs}_ap50'])
            for ours, theirs in dict(
                old_ap50='base', new_ap50='novel', all_ap50='all').items()
        }
        values['classes'] = {
            key[len(classes):]: value
            for key, value in metrics.items() if key.startswith(classes)
        }
        return values, kept

    def point(self, tuned: Mapping[str, Tensor], alpha: float) -> dict:
        """AP of weights between the original ones and tuned ones.

        Args:
            tuned (Mapping[str, Tensor]): By name.
            alpha (float): The share of the tuned ones.

        Returns:
            dict: ``alpha``, ``old_ap50`` and ``new_ap50``, and
            ``lost_at_most``, the bound of what is lost of the old one (see
            ``LostAP``).
        """
        values, kept = self.average_precision(
            interpolate(self.original, tuned, alpha))
        print_log(
            f'--blend: {alpha:g} of the trained weights: AP50 of previous '
            f'classes {percent(values["old_ap50"])}, of yours '
            f'{percent(values["new_ap50"])}', 'current')
        if alpha == 0:
            self._before = kept
        return dict(
            alpha=alpha,
            old_ap50=values['old_ap50'],
            new_ap50=values['new_ap50'],
            lost_at_most=self._lost.at_most(self._detections(kept)))

    @cached_property
    def _before(self) -> list[dict]:
        """What the original finds in the images with boxes."""
        return self.average_precision(self.original)[1]

    @cached_property
    def _lost(self) -> LostAP:
        """What is lost of the AP of old words."""
        content = read_json(self.data.val_boxes)
        return LostAP(content, self.old, self._detections(self._before))

    def _detections(self, kept: Sequence[dict]) -> list[dict]:
        """Detections of old words in COCO's result format."""
        content = read_json(self.data.val_boxes)
        number = {c['name']: c['id'] for c in content['categories']}
        numbers = [
            number.get(name) if name in self.old else None
            for name in self.names
        ]
        found = []
        for of_image in kept:
            boxes = of_image['found'].bboxes.clone()
            boxes[:, 2:] -= boxes[:, :2]
            for box, score, label in zip(boxes.tolist(),
                                         of_image['found'].scores.tolist(),
                                         of_image['found'].labels.tolist()):
                if numbers[label] is not None:
                    found.append(
                        dict(
                            image_id=of_image['image'],
                            category_id=numbers[label],
                            bbox=box,
                            score=score))
        return found

    def choose(self, tuned: Mapping[str, Tensor], most_lost: float) -> dict:
        """Where between the original weights and tuned ones to stand.

        Args:
            tuned (Mapping[str, Tensor]): By name.
            most_lost (float): See ``choose_point``.

        Returns:
            dict: ``alpha``, ``most_lost`` and ``curve``.
        """
        points = [self.point(tuned, alpha) for alpha in ALPHAS]
        chosen = choose_point(points, most_lost)
        return dict(alpha=chosen['alpha'], most_lost=most_lost, curve=points)

    def report(self, left: Mapping[str, Tensor]) -> dict:
        """Measure a detector beside the original, and write what comes out.

        Args:
            left (Mapping[str, Tensor]): Its weights by name.

        Returns:
            dict: What ``kept.json`` holds.
        """
        found: dict[str, Any] = dict(
            old_words=self.old,
            new_words=[name for name in self.new if name not in self.old])
        thresholds = [SCORE] * len(self.new)
        print_log('--keep: the original and the new detector are compared',
                  'current')
        if self.has_boxes:
            before, _ = self.average_precision(self.original)
            after, samples = self.average_precision(left)
            for key in ('old_ap50', 'new_ap50', 'all_ap50'):
                found[key] = dict(before=before[key], after=after[key])
            found['ap50'] = {
                name: dict(before=before['classes'][name], after=value)
                for name, value in after['classes'].items()
            }
            chosen = class_thresholds([s['found'] for s in samples],
                                      [s['truth'] for s in samples],
                                      self.names)
            write_json(self.work_dir / THRESHOLDS, chosen, indent=1)
            thresholds = [
                SCORE if chosen[name]['threshold'] is None else
                chosen[name]['threshold'] for name in self.new
            ]
        found.update(self._on_images(left, thresholds))
        write_json(self.work_dir / REPORT, found, indent=1)
        return found

    def _on_images(self, left: Mapping[str, Tensor],
                   thresholds: Sequence[float]) -> dict:
        """Agreement and false alarms on the user's own images."""
        images, named = self._captioned()
        sides = [
            self.detect(weights, images, self.data.images)
            for weights in (self.original, left)
        ]
        old = [i for i, name in enumerate(self.names) if name in self.old]
        before, after = ([of_labels(of, old) for of in side] for side in sides)
        result = dict(images=len(images))
        if self.old:
            result['agreement'] = agreement(before, after, SCORE)
            self._draw(images, before, after)
        absent: dict[str, Any] = {}
        for when, side in zip(('before', 'after'), sides):
            counts, lacking = unnamed_detections(side, named, thresholds)
            absent[when] = sum(counts.values())
            absent[f'{when}_by_class'] = {
                name: counts[label]
                for label, name in enumerate(self.new)
            }
        absent['images_without'] = {
            name: lacking[label]
            for label, name in enumerate(self.new)
        }
        result['not_named'] = absent
        return result

    def _captioned(self) -> tuple[list[dict], list[list[int]]]:
        """Some captioned images, spread evenly, and the classes they name."""
        content = json.loads(self.data.captions.read_text(encoding='utf-8'))
        images = content['images']
        step = max(1, math.ceil(len(images) / IMAGES))
        images = images[::step]
        label = {c['id']: i for i, c in enumerate(content['categories'])}
        return images, [[label[tag] for tag in image['pos_category_ids']]
                        for image in images]

    def detect(self, weights: Mapping[str, Tensor], images: Sequence[Mapping],
               folder: Path) -> list[InstanceData]:
        """Find new and old words in images without boxes.

        Args:
            weights (Mapping[str, Tensor]): By name.
            images (list[dict]): ``file_name``, ``width`` and ``height``.
            folder (Path): Theirs.

        Returns:
            list[InstanceData]: Of each image, on the CPU, in its pixels.
        """
        file = self.work_dir / LISTED
        write_json(
            file,
            dict(
                images=[
                    dict(
                        id=number,
                        **{
                            key: image[key]
                            for key in ('file_name', 'height', 'width')
                        }) for number, image in enumerate(images)
                ],
                annotations=[],
                categories=[
                    dict(id=number, name=name)
                    for number, name in enumerate(self.names)
                ]))
        try:
            # In the order of the images.
            return [
                sample.pred_instances.to('cpu') for _, samples in self._run(
                    weights, self._loader_of(file, folder))
                for sample in samples
            ]
        finally:
            file.unlink()

    def boxes_loader(self, boxes: OwnBoxes) -> DataLoader:
        """Images with boxes, as they are tested.

        Args:
            boxes (OwnBoxes): Of any layout.
        """
        file = boxes.file
        if file is None:
            file = self.work_dir / LISTED
            write_json(file, boxes.content)
        try:
            return self._loader_of(file, boxes.images)
        finally:
            if boxes.file is None:
                file.unlink()

    def _loader_of(self, file: Path, folder: Path) -> DataLoader:
        cfg = copy.deepcopy(self.cfg.test_dataloader)
        cfg.dataset.ann_file = str(file.absolute())
        cfg.dataset.data_prefix = dict(img=f'{folder.absolute()}/')
        return self._loader(cfg)

    def _loader(self, cfg: Config) -> DataLoader:
        cfg = copy.deepcopy(cfg)
        # The model says whether it reads names a few at a time.
        if self.model and self._read_in_parts:
            cfg.batch_size = 1
        cfg.num_workers = min(self.workers, cfg.get('num_workers', 0))
        cfg.persistent_workers = False
        if not cfg.num_workers:
            cfg.pop('prefetch_factor', None)
        return Runner.build_dataloader(cfg)

    @torch.no_grad()
    def _run(self, weights: Mapping[str, Tensor],
             loader) -> Iterator[tuple[dict, SampleList]]:
        """Batches and what the detector finds in them."""
        self.model.load_state_dict(weights)
        for batch in loader:
            yield batch, self.model.test_step(batch)

    def _draw(self, images: Sequence[dict], before: Sequence[InstanceData],
              after: Sequence[InstanceData]) -> None:
        """Draw the images of which the two say the most different things."""
        order = sorted(
            range(len(images)),
            key=lambda i: -disagreement(before[i], after[i], SCORE))
        chosen = order[:PICTURES]
        pictures = [
            read_image_file(self.data.images /
                            images[i]['file_name'])[..., ::-1] for i in chosen
        ]
        picture = draw_detections(
            pictures,
            None, {
                when: [side[i][side[i].scores >= SCORE] for i in chosen]
                for when, side in (('before', before), ('after', after))
            },
            self.names,
            note=f'old words, scores from {SCORE}')
        with atomic_path(self.work_dir / PICTURE) as beside:
            beside.write_bytes(
                cv2.imencode('.png', picture[..., ::-1])[1].tobytes())


def boxes_of_image(dataset, index: int) -> InstanceData:
    """The boxes of an image, but for crowds.

    Args:
        dataset (CocoDataset): With boxes.
        index (int): Of the image.

    Returns:
        InstanceData: ``bboxes`` (n, 4), absolute xyxy pixels of the image,
        and ``labels`` (n,).
    """
    instances = [
        instance for instance in dataset.get_data_info(index)['instances']
        if not instance['ignore_flag']
    ]
    return InstanceData(
        bboxes=torch.tensor([i['bbox'] for i in instances]).reshape(-1, 4),
        labels=torch.tensor([i['bbox_label'] for i in instances]).long())


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value
