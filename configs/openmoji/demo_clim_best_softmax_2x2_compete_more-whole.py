# `make demo`, row 3: row 2 and three CLIM mosaics a step. The 14 whole images
# and 12 tiles are as many captioned views as the 2 and 24 of
# demo_clim_best_softmax_2x2_compete.py.
_base_ = './demo_clim_best_softmax_2x2_compete.py'
train_dataloader = dict(batch_size=21, sampler=dict(source_ratio=[4, 14, 3]))
auto_scale_lr = dict(base_batch_size=21)
