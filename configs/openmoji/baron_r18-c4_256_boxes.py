# BARON without captions: boxes only, regions classified through the text
# encoder, from the base detector. Its layer to the embeddings does not fit
# and is left out: that to the pseudo-words starts anew.
_base_ = './faster-rcnn_r18-c4_256_boxes.py'
model = dict(
    roi_head=dict(
        bbox_head=dict(
            classifier=dict(
                type='mmdet_clim.PseudoWordClassifier',
                num_words=2,
                # Of two words and in 300 iterations, none is dropped.
                drop_prob=0.))),
    # Fewer regions than in the demo: each is a sentence to read.
    train_cfg=dict(rcnn=dict(sampler=dict(num=32))),
    test_cfg=dict(rpn=dict(max_per_img=50)))
max_iters = 300
train_cfg = dict(max_iters=max_iters, val_interval=max_iters)
param_scheduler = _base_.param_scheduler
param_scheduler[1].end = max_iters
load_from_skip = ['roi_head.bbox_head.fc_cls.projection.*']
