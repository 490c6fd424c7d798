# Licensed under the Apache License, Version 2.0.
"""What the tests of interrupted runs need of MMEngine."""
import pytest
from mmengine.runner.loops import _InfiniteDataloaderIterator


@pytest.fixture
def data_is_drawn_again_on_resume():
    """Skip where the data of finished iterations is passed over unread."""
    if 'skip_iter' in vars(_InfiniteDataloaderIterator):
        pytest.skip('this mmengine (onedl-mmengine 0.10.12) advances the '
                    'sampler alone on resume: transforms do not draw what '
                    'they drew, and caches are empty')
