# As demo_clim_best_softmax_2x2.py with nine mosaics a step, 2 + 9 * 4 = 38
# captioned views, nearly the 41 of demo_clim.py and of
# demo_captions-tags_equal-views.py.
_base_ = './demo_clim_best_softmax_2x2.py'
train_dataloader = dict(batch_size=15, sampler=dict(source_ratio=[4, 2, 9]))
auto_scale_lr = dict(base_batch_size=15)
