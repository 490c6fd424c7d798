# What CLIM is compared with at equal time: the same objective on whole images,
# as many per step as the 2x2 mosaics and whole images of clip_clim_2x2.py.
_base_ = './clip_clim.py'
model = dict(objectives=dict(clim=dict(grids=((1, 1), ), num_whole=3)))
train_dataloader = dict(batch_size=10)
