# Licensed under the Apache License, Version 2.0.
"""What a prepared file holds and what was dropped, in numbers and words."""
from collections import Counter
from collections.abc import Mapping, Sequence

from ..coco_annotations import CocoChecker


class FileCounts:
    """Counts of one file.

    Args:
        class_names (Sequence[str]): Every class is listed, also with 0.
        per_class (str): What is counted per class, 'boxes' or 'tags'.
    """

    def __init__(self, class_names: Sequence[str], per_class: str) -> None:
        captions = {'captions': 0} if per_class == 'tags' else {}
        self.totals = Counter({'images': 0, per_class: 0, **captions})
        self.per_class = per_class
        self.by_class = dict.fromkeys(class_names, 0)
        self.dropped: Counter = Counter()
        #: What was repaired, and what else a user should know.
        self.noted: Counter = Counter()

    def add_class(self, name: str) -> None:
        """Count one box or tag of a class."""
        self.totals[self.per_class] += 1
        self.by_class[name] += 1

    def add_repairs(self, checker: CocoChecker) -> None:
        """Count what was repaired and dropped of a file."""
        self.dropped.update(checker.dropped)
        self.noted.update({
            f'{what}: repaired': number
            for what, number in checker.repaired.items()
        })

    def as_dict(self) -> dict:
        """Numbers for the summary's JSON."""
        counts: dict = dict(
            self.totals, dropped=dict(sorted(self.dropped.items())))
        if self.noted:
            counts['noted'] = dict(sorted(self.noted.items()))
        counts[f'{self.per_class}_per_class'] = self.by_class
        return counts


def _describe(name: str, counts: Mapping) -> list[str]:
    """A file's lines of the printed summary."""
    totals = ', '.join(f'{value} {key}' for key, value in counts.items()
                       if isinstance(value, int))
    lines = [f'{name}: {totals}']
    for reason, number in counts['dropped'].items():
        lines.append(f'  dropped: {number} {reason}')
    for what, number in counts.get('noted', {}).items():
        lines.append(f'  noted: {number} {what}')
    for key, by_class in counts.items():
        if not key.endswith('_per_class'):
            continue
        what = key.replace('_per_class', '')
        ranked = sorted(by_class.items(), key=lambda item: -item[1])
        most = ', '.join(f'{name} {n}' for name, n in ranked[:10] if n)
        none = [name for name, n in ranked if not n]
        lines.append(f'  {what} per class, the most: {most or "none"}')
        if none:
            lines.append(f'  {len(none)} of {len(ranked)} classes have no '
                         f'{what}: {", ".join(none[:10])}'
                         f'{", ..." if len(none) > 10 else ""}')
    return lines


def describe_summary(summary: Mapping) -> str:
    """The summary as text.

    Args:
        summary (Mapping): ``files`` with the counts by file name, and other
            facts.
    """
    lines = [
        f'{key}: {value}' for key, value in summary.items() if key != 'files'
    ]
    for name, counts in summary['files'].items():
        lines.extend(_describe(name, counts))
    return '\n'.join(lines)
