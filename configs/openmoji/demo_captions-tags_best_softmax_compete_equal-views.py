# `make demo`, row 4: row 2 with as many captioned images a step as row 3 has
# captioned images and tiles, 14 + 3 * 4.
_base_ = './demo_captions-tags_best_softmax_compete.py'
train_dataloader = dict(batch_size=30, sampler=dict(source_ratio=[4, 26]))
auto_scale_lr = dict(base_batch_size=30)
