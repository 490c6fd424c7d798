# `make demo`, row 2: boxes, and captions and tags of 14 whole images a step.
_base_ = './demo_captions-tags_best_softmax_compete.py'
train_dataloader = dict(batch_size=18, sampler=dict(source_ratio=[4, 14]))
auto_scale_lr = dict(base_batch_size=18)
