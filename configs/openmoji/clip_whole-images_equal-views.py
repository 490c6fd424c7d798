# What CLIM is compared with at equal captioned views: whole images, as many
# per step as clip_clim_2x2.py reads for its mosaics, without text weights.
_base_ = './clip_whole-images.py'
train_dataloader = dict(batch_size=31)
