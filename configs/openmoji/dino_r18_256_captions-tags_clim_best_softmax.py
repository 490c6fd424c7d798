# Zero-shot DINO: the same, where each tag of a tile has the proposal that
# resembles it most, which is asked which of the classes it is.
_base_ = './dino_r18_256_captions-tags_clim.py'
model = dict(
    objectives=dict(
        tag=dict(
            regions='best',
            max_proposals=10,
            loss=dict(_delete_=True, **_base_.clim_softmax_loss))))
