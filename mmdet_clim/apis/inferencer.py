# Licensed under the Apache License, Version 2.0.
import copy
import logging
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import cv2
import mmcv
import mmengine
import numpy as np
import torch
from mmdet.apis import DetInferencer
from mmdet.apis.det_inferencer import InputsType
from mmdet.datasets.transforms import InferencerLoader
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.registry import FUNCTIONS
from mmengine.visualization import Visualizer
from torch import Tensor, nn

from mmdet_clim.checks import check_range
from mmdet_clim.datasets.caption_sources import IMAGE_SUFFIXES
from mmdet_clim.datasets.class_names import compared_name
from mmdet_clim.datasets.image_files import read_image_file
from mmdet_clim.datasets.images import MAX_PIXELS
from mmdet_clim.datasets.preparation.files import whole_file
from mmdet_clim.datasets.regular_files import open_regular
from mmdet_clim.datasets.transforms import LoadImageText
from mmdet_clim.engine.checkpoint_config import checkpoint_config
from mmdet_clim.engine.checkpoints import load_weights, read_checkpoint
from mmdet_clim.engine.config_checks import check_parts
from mmdet_clim.evaluation.class_thresholds import (
    THRESHOLDS,
    thresholds_beside,
)
from mmdet_clim.models.region_readers import BaseRegionReader
from mmdet_clim.models.roi_heads import ZeroShotClassifier
from mmdet_clim.models.unset_weights import (
    not_a_number_in_new_memory,
    set_what_was_left_unset,
)
from mmdet_clim.progress import track
from mmdet_clim.visualization import detector_responses, own_reader

from .vocabulary import (
    TakesVocabulary,
    parse_names,
    reads_texts,
    set_vocabulary,
)

#: Frames per second of a video that tells none.
USUAL_FPS = 25.
VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm')
LOADERS = ('LoadImageFromFile', 'mmcv.LoadImageFromFile',
           'mmdet.LoadImageFromFile')
#: Least score of a box that is shown, of classes that have no own.
SCORE = 0.3
#: What a loader or a resize raises of a file that is no image for them.
UNREADABLE = (OSError, ValueError, AssertionError, cv2.error)


def folder_images(folder: str | Path) -> list[str]:
    """The images in a folder, by name.

    Args:
        folder (str or Path): Folders in it are not looked into.

    Returns:
        list[str]: Their paths.

    Raises:
        ValueError: If there is none.
    """
    paths = sorted(
        str(path) for path in Path(folder).iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not paths:
        raise ValueError(f'inputs: {folder} has no image '
                         f'({" ".join(IMAGE_SUFFIXES)})')
    return paths


def check_file_names(paths: Iterable[str | Path]) -> None:
    """See that results of files do not overwrite each other.

    Args:
        paths (Iterable[str or Path]): Of images and videos.

    Raises:
        ValueError: If two of them have one name, but for folder and suffix.
    """
    files = [Path(path) for path in paths]
    counts = Counter(file.stem for file in files)
    same = [str(file) for file in files if counts[file.stem] > 1]
    if same:
        raise ValueError('inputs: expected files of different names, as each '
                         f'is written to preds/NAME.json, got {same[:4]}')


class CLIMInferencer(DetInferencer):
    """Boxes of one's own words in images, by any detector of this package.

    mmdet's ``DetInferencer``, with classes that are given at run time. A
    config of ``CLIMDetector`` gives its detector, and a checkpoint of either
    loads in it.

    Args:
        model (str or Config, optional): Path of the config. None takes the
            one that the checkpoint holds, which is read as data: see
            :mod:`~mmdet_clim.engine.checkpoint_config`.
        weights (str, optional): Path of the checkpoint.
        vocabulary (optional): The classes; anything that
            :func:`~mmdet_clim.datasets.build_vocabulary` reads. None keeps
            those of the config.
        device (str, optional): None takes an accelerator if there is one.
        thresholds (dict[str, float] or float, optional): Least scores of
            boxes that are shown, by class name or of all classes, for calls
            that name no ``pred_score_thr``. None reads those that a
            fine-tuning left beside the checkpoint in ``thresholds.json``, if
            it did. Classes without one have 0.3.
        show_progress (bool): Whether to draw a progress bar, where standard
            error is a terminal.
        **kwargs: The other arguments of ``DetInferencer``.

    Raises:
        KeyError: If the config lacks the model or the test data.
        ValueError: If the vocabulary is not one, no weight of the
            checkpoint is one of the detector's, its config is more than
            data, or ``thresholds.json`` has something else.
        TypeError: If a vocabulary is given and the detector neither
            classifies by text nor reads a text.

    Example:
        >>> find = CLIMInferencer('config.py', 'iter_600.pth')
        >>> find('street.jpg', vocabulary=['cat', 'fire truck'])
    """

    palette: Any

    def __init__(self,
                 model: str | Path | Config | None = None,
                 weights: str | None = None,
                 vocabulary: Any = None,
                 device: str | None = None,
                 thresholds: Mapping[str, float] | float | None = None,
                 show_progress: bool = True,
                 **kwargs) -> None:
        if thresholds is None and weights is not None:
            thresholds = thresholds_beside(weights)
            if thresholds:
                print_log(
                    f'{Path(weights).with_name(THRESHOLDS)}: score thresholds '
                    f'of {len(thresholds)} classes', 'current')
        #: Of boxes of the classes without one in `thresholds`.
        self.score = SCORE
        if isinstance(thresholds, (int, float)):
            self.score, thresholds = thresholds, {}
        self.thresholds = {
            compared_name(name): value
            for name, value in (thresholds or {}).items()
        }
        source: str | Path = 'config'
        if isinstance(model, (str, Path)):
            source, model = model, Config.fromfile(str(model))
        if model is not None:
            # In the place of an empty one, MMEngine would run the text that
            # the checkpoint holds.
            check_parts(model, source, ('model', 'test_dataloader'))
        if model is None and weights is not None:
            model = config_of(None, weights)
        super().__init__(model, weights, device, show_progress=False, **kwargs)
        # mmdet's own bar knows no total, and is drawn into files too.
        self._draws_bar = show_progress
        self._in_folder = False
        self._reader: BaseRegionReader | None = None
        if vocabulary is not None:
            self.set_vocabulary(vocabulary)

    def _init_collate(self, cfg: Config) -> Callable:
        """Look where collate functions are; mmdet has no registry of them."""
        collate = cfg.test_dataloader.get('collate_fn', 'pseudo_collate')
        return FUNCTIONS.get(
            collate if isinstance(collate, str) else collate['type'])

    def _init_visualizer(self, cfg: Config) -> Visualizer | None:
        """Give it no backend, as pictures go to ``out_dir``."""
        if 'visualizer' in cfg:
            cfg = Config(
                dict(visualizer=dict(cfg.visualizer, vis_backends=None)))
        return super()._init_visualizer(cfg)

    def set_vocabulary(self, vocabulary) -> None:
        """Replace the classes.

        Args:
            vocabulary: Anything that
                :func:`~mmdet_clim.datasets.build_vocabulary` reads.

        Raises:
            TypeError: If the detector neither classifies by text nor reads a
                text.
            ValueError: If a name is empty, given twice or unknown to a
                precomputed text encoder, or the names are more than a
                grounding detector reads at once.
        """
        self._take(set_vocabulary(self.model, vocabulary).names)

    def __call__(self,
                 inputs: InputsType,
                 vocabulary: Any = None,
                 texts: str | Sequence[str] | None = None,
                 **kwargs) -> dict:
        """Find the classes in images.

        Args:
            inputs (str, Path, ndarray or list): Path of an image or of a
                folder of images, an image (H, W, 3), uint8, in BGR, or a list
                of images. Of a folder, images that can not be read are left
                out with a warning.
            vocabulary (optional): The classes from now on; a list of names,
                for example.
            texts (str or list[str], optional): mmdet's way to say the same:
                names separated by ``' . '``, for all images or for each. A
                grounding detector reads a sentence here, or such names with
                ``custom_entities=True``.
            **kwargs: The other arguments of ``DetInferencer``, such as
                ``batch_size`` and ``out_dir``; ``pred_score_thr``, the least
                score of a box that is drawn, is ``thresholds`` by default.

        Returns:
            dict: ``predictions``, a dict per image with ``labels``,
            ``names``, ``scores`` and ``bboxes`` (absolute xyxy pixels of the
            image), best first, ``ori_shape`` (height and width of the image)
            and, of a file, ``img_path``; and ``visualization``, with pictures
            (H, W, 3) in RGB where ``return_vis=True`` asks for them.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If an image can not be read or a folder has none, two
                files would be written to one, both ``vocabulary`` and
                ``texts`` are given, there is not one text per image, the
                names are no vocabulary, or a grounding detector has neither.
        """
        kwargs.setdefault('pred_score_thr', None)
        self._in_folder = isinstance(inputs,
                                     (str, Path)) and Path(inputs).is_dir()
        inputs = self._inputs_to_list(inputs)
        if kwargs.get('out_dir'):
            check_file_names(path for path in inputs if isinstance(path, str))
        if vocabulary is not None and texts is not None:
            raise ValueError(
                'texts: expected None together with a vocabulary, got '
                f'{texts!r}')
        if vocabulary is not None:
            self.set_vocabulary(vocabulary)
        prompts: Any = texts
        if prompts is None and reads_texts(self.model):
            # A tuple is taken for names, a string would be taken apart.
            prompts = [self._prompt()] * len(inputs)
            kwargs['custom_entities'] = True
        if prompts is None or not self.classifies_by_text():
            return super().__call__(inputs, texts=prompts, **kwargs)
        if isinstance(prompts, str):
            prompts = [prompts] * len(inputs)
        if len(prompts) != len(inputs):
            raise ValueError(f'texts: expected one for each of {len(inputs)} '
                             f'images, got {len(prompts)}')
        results: dict[str, list] = dict(predictions=[], visualization=[])
        for text, pairs in groupby(
                zip(prompts, inputs), key=lambda pair: pair[0]):
            self.set_vocabulary(parse_names(text))
            found = super().__call__([image for _, image in pairs], **kwargs)
            for key, values in results.items():
                values.extend(found[key])
        return results

    def video(self,
              path: str | Path,
              out_file: str | Path | None = None,
              pred_score_thr: float | None = None,
              **kwargs) -> list[dict]:
        """Find the classes in a video, frame by frame.

        Args:
            path (str or Path): The video.
            out_file (str or Path, optional): Where the drawn video goes, as
                ``.mp4``.
            pred_score_thr (float, optional): As of a call.
            **kwargs: As of a call.

        Returns:
            list[dict]: The predictions of each frame. Where they are fewer
            than the file says that it has, a warning tells both numbers.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If not one frame can be read, or the frames are too
                large.
        """
        frames = frames_of(path)
        writer = None
        predictions = []
        # One bar of all frames, and none of each.
        shown, self._draws_bar = self._draws_bar, False
        try:
            for frame in _tracked(shown, frames, max(frames.frame_cnt, 0)):
                found = self(
                    frame,
                    return_vis=out_file is not None,
                    pred_score_thr=pred_score_thr,
                    **kwargs)
                # The classes are set once.
                kwargs.pop('vocabulary', None)
                predictions += found['predictions']
                if out_file is not None:
                    image = found['visualization'][0]
                    writer = writer or VideoFile(
                        Path(out_file), frames.fps, image)
                    writer.write(image)
        except BaseException:
            if writer is not None:
                writer.discard()
            raise
        finally:
            self._draws_bar = shown
        if writer is not None:
            writer.finish()
        if not predictions:
            raise ValueError(f'path: {path} is not a video, or none of its '
                             f'{max(frames.frame_cnt, 0)} frames can be read')
        if len(predictions) < frames.frame_cnt:
            print_log(
                f'{path}: {len(predictions)} of {frames.frame_cnt} frames '
                'can be read; the video is broken after them', 'current',
                logging.WARNING)
        return predictions

    @torch.no_grad()
    def responses(self, image: str | np.ndarray) -> Tensor:
        """Where in an image the detector answers to each of its classes.

        Args:
            image (str or ndarray): Path of an image, or an image (H, W, 3) in
                BGR.

        Returns:
            Tensor: Shape (C, h, w), on the CPU: cosines, from -1 to 1, of the
            C classes and of what the detector reads around each position of
            the image, h x w pixels large as the detector sees it.

        Raises:
            TypeError: If the detector has no region embeddings that its
                classes are compared with.
        """
        classifiers = [
            m for m in self.model.modules()
            if isinstance(m, ZeroShotClassifier)
        ]
        if not classifiers:
            raise TypeError(f'responses: {type(self.model).__name__} compares '
                            'no region embeddings with class embeddings')
        # Of a cascade, the stage that its reader reads.
        texts = classifiers[-1].class_embeddings
        if self._reader is None:
            self._reader = own_reader(self.model, texts.shape[1])
        _, data = next(iter(self.preprocess([image])))
        data = self.model.data_preprocessor(data, False)
        height, width = data['data_samples'][0].img_shape[:2]
        pixels = data['inputs']
        maps = detector_responses(
            self.model, self._reader,
            self._reader.extract_feat(self.model, pixels),
            tuple(pixels.shape[2:]), texts)
        # What the padding answers is not shown.
        return maps[:, :height, :width].cpu()

    def classifies_by_text(self) -> bool:
        """Whether a part of the detector takes a vocabulary.

        A grounding detector does not: it reads its classes with each image.
        """
        return any(
            isinstance(part, TakesVocabulary) for part in self.model.modules())

    def _prompt(self) -> tuple[str, ...]:
        """The classes that a grounding detector is to look for."""
        names = tuple(self.model.dataset_meta['classes'])
        if not names:
            raise ValueError(
                f'vocabulary: {type(self.model).__name__} needs the class '
                'names of each call, as vocabulary or texts; got neither')
        return names

    def _inputs_to_list(self, inputs: InputsType) -> list:
        """Paths as strings, and images that have three channels."""
        if isinstance(inputs, (str, Path)) and Path(inputs).is_dir():
            return folder_images(inputs)
        if isinstance(inputs, Path):
            inputs = str(inputs)
        inputs = super()._inputs_to_list(inputs)
        for image in inputs:
            if isinstance(image, np.ndarray) and (image.dtype != np.uint8
                                                  or image.shape[2:] != (3, )):
                raise ValueError('inputs: expected images (H, W, 3) of uint8, '
                                 f'got {image.shape} of {image.dtype}')
        return [str(i) if isinstance(i, Path) else i for i in inputs]

    def _get_chunk_data(self, inputs: Iterable,
                        chunk_size: int) -> Iterator[list]:
        """Batches of images with what the pipeline made of them."""
        check_range(1, batch_size=chunk_size)
        prepared = self._prepared(_tracked(self._draws_bar, inputs))
        while True:
            batch = list(islice(prepared, chunk_size))
            if not batch:
                return
            yield batch

    def _prepared(self, inputs: Iterable) -> Iterator[tuple]:
        """Each image that can be read, and the pipeline's results of it."""
        for item in inputs:
            image = item
            if isinstance(item, dict):
                # With a text.
                image = item['img'] if 'img' in item else item['img_path']
            try:
                results = self.pipeline(copy.deepcopy(item))
            except UNREADABLE as error:
                what = image if isinstance(image, str) else image.shape
                message = f'inputs: {what} cannot be read: {error}'
                if self._in_folder:
                    print_log(f'{message}; skipped', 'current',
                              logging.WARNING)
                    continue
                if isinstance(image, str) and not Path(image).exists():
                    raise FileNotFoundError(
                        f'inputs: {image} does not exist') from error
                raise ValueError(message) from error
            yield image, results

    def visualize(self,
                  inputs: InputsType,
                  preds: list[DetDataSample],
                  return_vis: bool = False,
                  show: bool = False,
                  wait_time: float = 0,
                  draw_pred: bool = True,
                  pred_score_thr: float | None = None,
                  no_save_vis: bool = False,
                  img_out_dir: str = '') -> list[np.ndarray] | None:
        """Draw the boxes on the images.

        Args:
            inputs (list[str or ndarray]): Paths, or images (H, W, 3) in BGR.
            preds (list[DetDataSample]): The predictions.
            return_vis (bool): Whether to return the pictures.
            show (bool): Whether to show them in windows.
            wait_time (float): Seconds that a window stays.
            draw_pred (bool): Whether to draw the boxes.
            pred_score_thr (float, optional): Least score of a box that is
                drawn; None for that of its class.
            no_save_vis (bool): Whether to write none.
            img_out_dir (str): They go to ``vis/`` in this folder; '' for
                none.

        Returns:
            list[ndarray]: Pictures (H, W, 3) in RGB; None if none are asked
            for.
        """
        folder = '' if no_save_vis else img_out_dir
        if not (show or folder or return_vis):
            return None
        if self.visualizer is None:
            raise ValueError('visualizer: expected one in the config to draw '
                             'with, got none')
        pictures = []
        for image, pred in zip(inputs, preds):
            name = f'{self.num_visualized_imgs:08}.jpg'
            if isinstance(image, str):
                # As the pipeline read it.
                name, image = _picture_name(image), read_image_file(image)
            self.visualizer.add_datasample(
                name,
                image[..., ::-1],
                self._shown(pred, pred_score_thr),
                draw_gt=False,
                draw_pred=draw_pred,
                show=show,
                wait_time=wait_time,
                # What scores less is left out already.
                pred_score_thr=-1.0,
                out_file=str(Path(folder, 'vis', name)) if folder else None)
            pictures.append(self.visualizer.get_image())
            self.num_visualized_imgs += 1
        return pictures

    def least_score(self, name: str) -> float:
        """Least score of a box of a class, where a call tells none.

        Args:
            name (str): Of the class.
        """
        return self.thresholds.get(compared_name(name), self.score)

    def _shown(self, pred: DetDataSample,
               least: float | None) -> DetDataSample:
        """A prediction without boxes that score less than they have to."""
        found = pred.get('pred_instances')
        if found is None:
            return pred
        scores = found.scores
        if least is None:
            names = self._names_of(pred) or [''] * len(scores)
            limits = scores.new_tensor([self.least_score(n) for n in names])
            kept = scores >= limits
        else:
            kept = scores >= least
        shown = pred.clone()
        shown.pred_instances = found[kept]
        return shown

    def _names_of(self, pred: DetDataSample) -> list[str] | None:
        """The class of each box, None if it has no name."""
        found = pred.get('pred_instances', {})
        if isinstance(pred.get('text'), tuple):
            # Of these, a grounding detector would give cleaned names.
            classes = pred.text
        elif 'label_names' in found:
            # It splits its text without trimming.
            return [name.strip() for name in found.label_names]
        else:
            classes = self.model.dataset_meta['classes']
        if not classes or 'labels' not in found:
            return None
        return [classes[label] for label in found.labels.tolist()]

    def pred2dict(self,
                  data_sample: DetDataSample,
                  pred_out_dir: str = '') -> dict:
        """A prediction as plain data, with the names of the classes.

        Args:
            data_sample (DetDataSample): Prediction of one image.
            pred_out_dir (str): Folder of ``preds/IMAGE.json``; empty for none.
        """
        result = super().pred2dict(data_sample)
        names = self._names_of(data_sample)
        if names is not None:
            result['names'] = names
        result['ori_shape'] = list(data_sample.ori_shape)
        # Of an image in memory, mmdet has None here.
        path = data_sample.get('img_path')
        if path is not None:
            result['img_path'] = path
        if pred_out_dir:
            if path is not None:
                name = Path(path).stem
            else:
                name = str(self.num_predicted_imgs)
                self.num_predicted_imgs += 1
            file = Path(pred_out_dir, 'preds', f'{name}.json')
            with whole_file(file) as stream:
                mmengine.dump(result, stream, 'json')
        return result

    def _take(self, names: Sequence[str]) -> None:
        """Name and colour boxes by these classes."""
        self.model.dataset_meta = dict(
            classes=tuple(names), palette=self.palette)
        if self.visualizer is not None:
            self.visualizer.dataset_meta = self.model.dataset_meta

    def _init_model(self,
                    cfg: Config,
                    weights: str | None,
                    device: str = 'cpu') -> nn.Module:
        if cfg and 'detector' in cfg.model:
            # The text encoder of training is not needed.
            cfg.model = cfg.model.detector
        if weights is not None:
            # Before the model is built, and with an error that tells more.
            read_checkpoint(weights, mmap=True)
        self._weights = weights
        # MMEngine would read the file itself, and no safetensors.
        if weights is not None:
            return super()._init_model(cfg, None, device)
        with not_a_number_in_new_memory():
            model = super()._init_model(cfg, None, device)
        set_what_was_left_unset(model)
        return model

    def _load_weights_to_model(self, model: nn.Module, checkpoint: dict | None,
                               cfg) -> None:
        if self.palette == 'none':
            self.palette = 'random'
        meta = {}
        if self._weights is None:
            print_log(
                'weights: expected a checkpoint, got none; the weights, and '
                'so the detections, are random', 'current', logging.WARNING)
        else:
            loaded = read_checkpoint(self._weights)
            meta = loaded.get('meta', {}).get('dataset_meta', {})
            load_weights(model, loaded, self._weights)
        parts = [m for m in model.modules() if isinstance(m, TakesVocabulary)]
        classes = parts[0].vocabulary.names if parts else meta.get(
            'classes', ())
        model.dataset_meta = dict(classes=classes, palette=self.palette)

    def _init_pipeline(self, cfg):
        pipeline = cfg.test_dataloader.dataset.pipeline
        for transform in pipeline:
            if transform.type in LOADERS:
                transform.type = 'LoadImageFromFile'
        steps = super()._init_pipeline(cfg)
        for step in steps.transforms:
            if isinstance(step, InferencerLoader):
                step.from_file = LoadImageText(
                    to_float32=step.from_file.to_float32)
        return steps


def config_of(config: str | Path | Config | None,
              weights: str | Path) -> Config:
    """The config of a detector: that of a file, or that of a checkpoint.

    Args:
        config (str, Path or Config, optional): Run as Python where it is a
            file. None reads the one in the checkpoint as data.
        weights (str or Path): The checkpoint.
    """
    if isinstance(config, Config):
        return config
    if config is not None:
        return Config.fromfile(str(config))
    checkpoint = read_checkpoint(weights)
    cfg = checkpoint_config(checkpoint, weights)
    # Those of configs may write to services on the network.
    cfg.visualizer = dict(type='mmdet.DetLocalVisualizer', name='visualizer')
    return cfg


def _picture_name(image: str) -> str:
    """The name of an image's picture: its own, if OpenCV writes the format."""
    path = Path(image)
    known = path.suffix and cv2.haveImageWriter(f'x{path.suffix}')
    return path.name if known else f'{path.name}.jpg'


def _tracked(shown: bool,
             inputs: Iterable,
             total: int | None = None) -> Iterable:
    """The inputs, with a bar where one is wanted."""
    return track(inputs, 'inference', total) if shown else inputs


def frames_of(path: str | Path) -> mmcv.VideoReader:
    """The frames of a video, if they are no larger than images may be.

    Args:
        path (str or Path): The video.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no regular file, or the frames are too large.
    """
    with open_regular(path):
        frames = mmcv.VideoReader(str(path))
    if frames.width * frames.height > MAX_PIXELS:
        raise ValueError(f'path: {path} has frames of {frames.width}x'
                         f'{frames.height} pixels, expected at most '
                         f'{MAX_PIXELS} pixels')
    return frames


class VideoFile:
    """A video that has its name when it is finished.

    Args:
        path (Path): In ``.mp4``, or in ``.webm``, which browsers play.
        fps (float): Frames per second.
        image (np.ndarray): The first frame, (H, W, 3), for the size.

    Raises:
        ValueError: If it can not be written.
    """

    def __init__(self, path: Path, fps: float, image: np.ndarray) -> None:
        self.path = path
        self.unfinished = path.with_name(
            f'{path.stem}.{os.getpid()}{path.suffix}')
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = image.shape[:2]
        codec = 'VP80' if path.suffix == '.webm' else 'mp4v'
        self.writer = cv2.VideoWriter(
            str(self.unfinished),
            cv2.VideoWriter.fourcc(*codec),
            # Some videos tell none.
            fps if fps > 0 else USUAL_FPS,
            (width, height))
        if not self.writer.isOpened():
            raise ValueError(f'out_file: {path} cannot be written')

    def write(self, image: np.ndarray) -> None:
        """Add one frame in RGB."""
        self.writer.write(image[..., ::-1])

    def finish(self) -> None:
        self.writer.release()
        os.replace(self.unfinished, self.path)

    def discard(self) -> None:
        self.writer.release()
        self.unfinished.unlink(missing_ok=True)
