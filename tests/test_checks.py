# Licensed under the Apache License, Version 2.0.
"""What arguments may be, with the message of each that may not."""
import numpy as np
import pytest

from mmdet_clim.checks import (
    check_finite,
    check_positive,
    check_range,
    check_size,
    check_whole,
)


@pytest.mark.parametrize('value', [0, -3, 2.0, '4', (1, )])
def test_no_whole_number(value):
    check_whole(buffer_size=1, num_samples=10**9, epoch_length=None)
    with pytest.raises(ValueError) as error:
        check_whole(num_samples=7, buffer_size=value)
    assert str(error.value) == (
        'buffer_size: expected a whole number of at least 1, got '
        f'{value!r}')


@pytest.mark.parametrize('value', [(0, 5), (5, 0.5), (5, ), (5, 5, 5), ()])
def test_no_size(value):
    check_size(scale=None, tile_size=(1, 1), out_size=[1333, 800])
    with pytest.raises(ValueError) as error:
        check_size(tile_size=(4, 4), out_size=value)
    assert str(error.value) == (
        'out_size: expected (width, height) of at least 1, got '
        f'{value}')


@pytest.mark.parametrize('value', [-1, 3, 2, float('nan'), '1', [1], {}])
def test_no_number_of_a_range(value):
    check_range(0, 2, without=(2, ), bias=None, temperature=1.5, weight=0)
    with pytest.raises(ValueError) as error:
        check_range(0, 2, without=(2, ), temperature=value)
    assert str(error.value) == (
        f'temperature: expected 0 to 2, but not 2, got {value!r}')


@pytest.mark.parametrize('value', [float('inf'), float('nan'), '1', [1]])
def test_no_finite_number(value):
    check_finite(bias=None, temperature=-1e300, weight=np.float32(3))
    with pytest.raises(ValueError) as error:
        check_finite(weight=1, bias=value)
    assert str(
        error.value) == (f'bias: expected a finite number, got {value!r}')


@pytest.mark.parametrize(
    'value',
    [0, -1, float('inf'), float('nan'), '1', None])
def test_no_positive_number(value):
    check_positive(lr=1e-300, temperature=np.float32(3), weight=2)
    with pytest.raises(ValueError) as error:
        check_positive(weight=1, temperature=value)
    assert str(error.value) == (
        f'temperature: expected a positive number, got {value!r}')
