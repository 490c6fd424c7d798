# Licensed under the Apache License, Version 2.0.
import os
import re
from typing import Any

import numpy as np
from mmengine.visualization import MLflowVisBackend as _MLflowVisBackend

from mmdet_clim.registry import VISBACKENDS

#: What MLflow takes in no name of a metric or a file.
_REFUSED = re.compile(r'[^/\w.\- :]')


@VISBACKENDS.register_module()
class MLflowVisBackend(_MLflowVisBackend):
    """MMEngine's backend, with names that MLflow takes.

    MLflow refuses ``mosaic.caption.recall@1``, which becomes
    ``mosaic.caption.recall_1``, and pictures whose names have no suffix, which
    get their step and ``.png``. Without a ``tracking_uri``, MMEngine writes
    to files in the work dir; recent versions of MLflow want to be asked for
    that by the variable ``MLFLOW_ALLOW_FILE_STORE``, which is set here unless
    it is.

    Args:
        save_dir (str): Where files go; the visualizer gives it.
        **kwargs: See MMEngine's.
    """

    def _init_env(self) -> None:
        if self._tracking_uri is None:
            os.environ.setdefault('MLFLOW_ALLOW_FILE_STORE', 'true')
        super()._init_env()

    def add_scalar(self,
                   name: str,
                   value: Any,
                   step: int = 0,
                   **kwargs: Any) -> None:
        super().add_scalar(_accepted(name), value, step, **kwargs)

    def add_scalars(self,
                    scalar_dict: dict[str, Any],
                    step: int = 0,
                    file_path: str | None = None,
                    **kwargs: Any) -> None:
        super().add_scalars(
            {
                _accepted(name): value
                for name, value in scalar_dict.items()
            }, step, file_path, **kwargs)

    def add_image(self,
                  name: str,
                  image: np.ndarray,
                  step: int = 0,
                  **kwargs: Any) -> None:
        super().add_image(f'{_accepted(name)}_{step}.png', image, step,
                          **kwargs)


def _accepted(name: str) -> str:
    return _REFUSED.sub('_', name)
