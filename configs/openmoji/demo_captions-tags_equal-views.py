# As demo_captions-tags.py, with as many captioned images a step as
# demo_clim.py has captioned images and tiles, 2 + 6 * (4 + 9) / 2.
_base_ = './demo_captions-tags.py'
train_dataloader = dict(batch_size=45, sampler=dict(source_ratio=[4, 41]))
auto_scale_lr = dict(base_batch_size=45)
