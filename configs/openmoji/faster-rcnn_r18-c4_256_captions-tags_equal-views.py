# Demo, row 4: row 2 with as many captioned images a step as row 3 has
# captioned images and tiles, 2 + 6 * (4 + 9) / 2.
_base_ = './faster-rcnn_r18-c4_256_captions-tags.py'
train_dataloader = dict(batch_size=49, sampler=dict(source_ratio=[8, 41]))
auto_scale_lr = dict(base_batch_size=49)
