# fvit_squares_640.py with squares of 1024 pixels (REFERENCE.md, section 5).
_base_ = './fvit_squares_640.py'
square = _base_.square
square.size = (1024, 1024)
large_scale_jitter = _base_.large_scale_jitter
large_scale_jitter[0].scale = (1024, 1024)
large_scale_jitter[1].crop_size = (1024, 1024)
large_scale_jitter[3] = square
test_squares = _base_.test_squares
test_squares[0].scale = (1024, 1024)
test_squares[1] = square
