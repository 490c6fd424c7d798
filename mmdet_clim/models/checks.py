# Licensed under the Apache License, Version 2.0.
"""What the arguments of a config may be."""
import math
from typing import Optional


def check_range(least: float,
                most: float = math.inf,
                **values: Optional[float]) -> None:
    """Refuse arguments that are out of their range.

    Args:
        least (float): The smallest number that is allowed.
        most (float): The largest one.
        **values: Arguments by their names; None is none.

    Raises:
        ValueError: If one is not in [least, most].
    """
    for name, value in values.items():
        if value is not None and not least <= value <= most:
            allowed = f'at least {least}' if most == math.inf else \
                f'{least} to {most}'
            raise ValueError(f'{name}: expected {allowed}, got {value}')
