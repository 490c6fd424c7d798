# As centernet2_r18_lvis_clim_novel-source.py, with each tag at the proposal
# that fits it best, and a softmax over the classes.
_base_ = './centernet2_r18_lvis_clim_novel-source.py'
model = dict(
    objectives=dict(
        tag=dict(
            regions='best',
            max_proposals=10,
            loss=dict(
                _delete_=True, **_base_.clim_softmax_loss, loss_weight=0.1))))
