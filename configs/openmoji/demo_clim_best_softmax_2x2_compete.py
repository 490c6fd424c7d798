# As demo_clim_best_softmax_2x2.py, and at test time classes compete.
_base_ = './demo_clim_best_softmax_2x2.py'
model = dict(
    detector=dict(
        roi_head=dict(
            bbox_head=dict(
                loss_cls=dict(
                    type='mmdet_clim.BaseClassSigmoidLoss', compete=True)))))
