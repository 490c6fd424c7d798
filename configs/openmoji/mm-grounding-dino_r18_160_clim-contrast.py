# MM-Grounding-DINO with CLIM by the other route: the decoder's queries at the
# tiles against the embeddings of captions and class names.
_base_ = './mm-grounding-dino_r18_160_clim.py'
model = dict(
    objectives=dict(_delete_=True, **_base_.clim_objectives),
    region_reader=dict(type='mmdet_clim.GroundingReader', source='query'))
