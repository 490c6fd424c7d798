# As demo_captions-tags_best_softmax.py, and at test time classes compete.
_base_ = './demo_captions-tags_best_softmax.py'
model = dict(
    detector=dict(
        roi_head=dict(
            bbox_head=dict(
                loss_cls=dict(
                    type='mmdet_clim.BaseClassSigmoidLoss', compete=True)))))
