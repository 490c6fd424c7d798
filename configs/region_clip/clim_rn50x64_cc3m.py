# CLIM on CLIP RN50x64 with CC3M's captions: layer4 trained, averaged with
# weight 0.5 (REFERENCE.md, section 4).
_base_ = './clim_vit-b-16_cc3m.py'
clip = dict(model='RN50x64-quickgelu', pretrained='{{$CLIP_RN50X64:openai}}')
model = dict(image_tower=clip, text_encoder=clip, unlocked_blocks=1)
averaging = _base_.averaging
averaging.alpha = 0.5
custom_hooks = [*_base_.custom_hooks[:-1], averaging]
