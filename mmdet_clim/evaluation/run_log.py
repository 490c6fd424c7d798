# Licensed under the Apache License, Version 2.0.
"""What a training run logged, read back from its work dir."""
import json
from pathlib import Path
from statistics import median

Series = list[tuple[int, float]]
#: Seconds of a step, in the log of a validation and a test too.
_TIMES = ('time', 'data_time')


def read_scalars(work_dir: str | Path) -> dict[str, Series]:
    """Read the scalars that MMEngine's local backend wrote in a work dir.

    Every ``*/vis_data/scalars.json`` of the work dir is read in the order of
    the run's time stamps, so that a resumed run reads as one; a step that was
    logged again counts once, as it was logged last. The steps of epoch-based
    validations are epochs where the logger wrote them so. A work dir in which
    a model was only tested has the metrics of its last test, at step 0.

    Args:
        work_dir (str or Path): The work dir of a run.

    Returns:
        dict[str, list[tuple[int, float]]]: ``(step, value)`` of each key in
        the order of the steps. ``time`` and ``data_time`` are those of the
        training iterations; those of validations are left out.

    Raises:
        FileNotFoundError: If the work dir holds neither scalars nor what a
            test printed.
        ValueError: If a line is not a JSON object with a step. A last line
            that was cut off by the end of a process is skipped.
    """
    files = sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
    if not files:
        return _tested(Path(work_dir))
    values: dict[str, dict[int, float]] = {}
    for file in files:
        trained = 0
        lines = file.read_text(encoding='utf-8').splitlines()
        for number, line in enumerate(lines, 1):
            try:
                entry = json.loads(line)
                step = entry.pop('step')
            except (json.JSONDecodeError, KeyError, TypeError,
                    AttributeError) as error:
                if number == len(lines):
                    break
                raise ValueError(
                    f'{file}, line {number}: expected a JSON object with '
                    f'"step", got {line[:80]!r}') from error
            if 'iter' in entry:
                trained = step
            else:
                # With LoggerHook(log_metric_by_epoch=True), its default, an
                # iteration-based run writes step 0 or 1 beside its metrics.
                step = max(step, trained)
                for key in _TIMES:
                    entry.pop(key, None)
            for key, value in entry.items():
                if isinstance(value, (int, float)):
                    values.setdefault(key, {})[step] = float(value)
    return {key: sorted(steps.items()) for key, steps in values.items()}


def _tested(work_dir: Path) -> dict[str, Series]:
    """What MMEngine's LoggerHook wrote of the last test of a work dir."""
    files = sorted(work_dir.glob('*/[0-9]*.json'))
    if not files:
        raise FileNotFoundError(
            f'{work_dir}: expected */vis_data/scalars.json of an MMEngine '
            'run (LocalVisBackend) or */TIME.json of a test, found none')
    metrics = json.loads(files[-1].read_text(encoding='utf-8'))
    return {
        key: [(0, float(value))]
        for key, value in metrics.items()
        if isinstance(value, (int, float)) and key not in _TIMES
    }


def last_metrics(scalars: dict[str, Series],
                 prefix: str = 'ov_coco/') -> dict[str, float]:
    """The last logged value of each metric under a prefix, without it."""
    return {
        key[len(prefix):]: series[-1][1]
        for key, series in scalars.items() if key.startswith(prefix)
    }


def seconds_per_iteration(scalars: dict[str, Series]) -> float:
    """Median of the logged training times in seconds, NaN without any.

    The median keeps a slow start or a moment of another load out.
    """
    times = [value for _, value in scalars.get('time', ())]
    return median(times) if times else float('nan')
