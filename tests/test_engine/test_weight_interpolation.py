# Licensed under the Apache License, Version 2.0.
import pytest
import torch

from mmdet_clim.engine.weight_interpolation import choose_point, interpolate


def point(alpha, lost, new):
    return dict(alpha=alpha, lost_at_most=lost, new_ap50=new)


def test_weights_between_two():
    original = dict(a=torch.tensor([2.0, 4.0]).half(), n=torch.tensor(3))
    tuned = dict(
        a=torch.tensor([4.0, 0.0]), n=torch.tensor(9), b=torch.tensor([1.0]))
    for alpha, wanted in ((0, [2, 4]), (0.25, [2.5, 3]), (1, [4, 0])):
        mixed = interpolate(original, tuned, alpha)
        assert list(mixed) == ['a', 'n', 'b']
        assert mixed['a'].dtype == torch.float32
        assert mixed['a'].tolist() == wanted
        # A counter, and what the original has not.
        assert mixed['n'] == 9 and mixed['b'].tolist() == [1]
    # Neither is changed.
    assert tuned['a'].tolist() == [4, 0] and original['a'].tolist() == [2, 4]
    for alpha in (-0.1, 1.1):
        with pytest.raises(ValueError, match='alpha: expected 0 to 1'):
            interpolate(original, tuned, alpha)
    with pytest.raises(ValueError, match=r'a: expected one shape, got \(1,\)'):
        interpolate(dict(a=torch.zeros(1)), tuned, 0.5)


def test_the_chosen_point():
    curve = [
        point(0.0, 0., .10),
        point(0.5, .01, .30),
        point(0.75, .015, .35),
        point(1.0, .10, .40)
    ]
    assert choose_point(curve, 1.0)['alpha'] == 0.5
    assert choose_point(curve, 1.5)['alpha'] == 0.75
    assert choose_point(curve, 0.0)['alpha'] == 0.0
    assert choose_point(curve, 10.0)['alpha'] == 1.0
    # A peak in the middle.
    curve[1]['new_ap50'] = .5
    assert choose_point(curve, 10.0)['alpha'] == 0.5
    # Without boxes of new words, as far as old ones allow.
    for entry in curve:
        entry['new_ap50'] = None
    assert choose_point(curve, 1.5)['alpha'] == 0.75
    # Nothing is known of a point without drawn objects; alpha 0 stays.
    curve[1]['lost_at_most'] = curve[2]['lost_at_most'] = float('nan')
    assert choose_point(curve, 1.5)['alpha'] == 0.0
    with pytest.raises(ValueError, match='curve: expected a point of alpha 0'):
        choose_point(curve[1:], 1.0)
