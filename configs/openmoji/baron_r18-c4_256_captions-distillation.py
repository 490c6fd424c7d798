# BARON's two sides: bags of captioned images against captions, and bags of the
# images with boxes against the crops that they are cut from, ten to one as on
# OV-COCO. A small CLIP reads words, captions and crops: the one of
# clip_pretrain.py, or what OPENMOJI_CLIP names.
_base_ = './baron_r18-c4_256_captions.py'
clip = dict(
    model='{{ fileDirname }}/open_clip_small.json',
    pretrained='{{$OPENMOJI_CLIP:work_dirs/clip_pretrain/open_clip.pt}}')
clip_text_encoder = dict(
    _delete_=True, type='mmdet_clim.OpenCLIPTextEncoder', **clip)
queue = dict(type='mmdet_clim.FeatureQueue', size=128, dim=128)
word_dim = 64
model = dict(
    detector=dict(
        roi_head=dict(
            bbox_head=dict(classifier=dict(text_encoder=clip_text_encoder)))),
    text_encoder=clip_text_encoder,
    objectives=dict(
        bag=dict(queue=queue, bags=dict(word_dim=word_dim)),
        distillation=dict(
            type='mmdet_clim.BagDistillationObjective',
            image_encoder=dict(
                data_preprocessor=_base_.model.detector.data_preprocessor,
                **clip),
            bags=dict(word_dim=word_dim, num_words=2, num_orders=1),
            num_groups=1,
            proposals=dict(max_objects=4),
            queue=queue,
            loss=dict(
                type='mmdet_clim.CLIMRegionLoss',
                kind='infonce',
                temperature=30.0,
                loss_weight=0.2),
            object_loss=dict(
                type='mmdet_clim.CLIMRegionLoss',
                kind='infonce',
                temperature=50.0,
                loss_weight=0.02))),
    branches=dict(boxes=['distillation']))
