# Dense detector: whole images with the options of
# fcos_r18_256_captions-tags_clim_best_softmax.py.
_base_ = './fcos_r18_256_captions-tags.py'
model = dict(
    objectives=dict(
        tag=dict(
            regions='best',
            max_proposals=10,
            loss=dict(_delete_=True, **_base_.clim_softmax_loss))))
