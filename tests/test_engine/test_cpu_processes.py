# Licensed under the Apache License, Version 2.0.
"""Who started the processes of a run."""
import pytest

from mmdet_clim.engine.cpu_processes import STARTERS, check_launcher


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for _, names in STARTERS.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.parametrize('launcher', sorted(STARTERS))
def test_a_launcher_that_did_not_start_it(environment, launcher):
    program, names = STARTERS[launcher]
    with pytest.raises(
            ValueError,
            match=f'--launcher {launcher}: .*{program}'
            f' started, got none of its {", ".join(names)} '):
        check_launcher(launcher)
    for name in names:
        environment.setenv(name, '2')
    check_launcher(launcher)


def test_no_launcher(environment):
    check_launcher('none')
    environment.setenv('WORLD_SIZE', '1')
    check_launcher('none')
    # Each of them would begin a run in the same folder.
    environment.setenv('WORLD_SIZE', '2')
    with pytest.raises(ValueError, match='pytorch in one of 2 processes'):
        check_launcher('none')
