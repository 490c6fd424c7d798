# OV-LVIS at 640 pixels, 8 images per GPU, by epochs (REFERENCE.md, section 5).
_base_ = './ov_lvis_detection.py'
val_dataloader = _base_.val_dataloader
val_dataloader.dataset.pipeline[1].scale = (640, 640)
test_dataloader = val_dataloader
