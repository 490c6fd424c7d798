# As demo_captions-tags_best_softmax.py, with as many captioned images a step
# as demo_clim_best_softmax_2x2.py has captioned images and tiles, 2 + 6 * 4.
_base_ = './demo_captions-tags_best_softmax.py'
train_dataloader = dict(batch_size=30, sampler=dict(source_ratio=[4, 26]))
auto_scale_lr = dict(base_batch_size=30)
