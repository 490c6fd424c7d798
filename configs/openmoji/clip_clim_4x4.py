# CLIM on the small CLIP with 4x4 mosaics alone; three images stay whole.
_base_ = './clip_clim.py'
model = dict(objectives=dict(clim=dict(grids=((4, 4), ), num_whole=3)))
train_dataloader = dict(batch_size=35)
