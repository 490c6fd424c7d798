# CLIM on CLIP ViT-L/14 of 336 pixels with CC3M's captions. REFERENCE.md has
# the recipe of ViT-B/16; here, too, half of the blocks are trained.
_base_ = './clim_vit-b-16_cc3m.py'
clip = dict(
    model='ViT-L-14-336-quickgelu', pretrained='{{$CLIP_VIT_L_14_336:openai}}')
model = dict(image_tower=clip, text_encoder=clip, unlocked_blocks=12)
