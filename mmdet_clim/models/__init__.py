# Licensed under the Apache License, Version 2.0.
from .backbones import *  # noqa: F401,F403
from .clip_refinement import *  # noqa: F401,F403
from .data_preprocessors import *  # noqa: F401,F403
from .dense_heads import *  # noqa: F401,F403
from .detectors import *  # noqa: F401,F403
from .families.table import FAMILIES  # noqa: F401
from .float32_operators import OPERATORS, take_bfloat16
from .language_models import *  # noqa: F401,F403
from .losses import *  # noqa: F401,F403
from .necks import *  # noqa: F401,F403
from .objectives import *  # noqa: F401,F403
from .region_readers import *  # noqa: F401,F403
from .roi_heads import *  # noqa: F401,F403
from .text_encoders import *  # noqa: F401,F403

for operator in OPERATORS:
    take_bfloat16(operator)
