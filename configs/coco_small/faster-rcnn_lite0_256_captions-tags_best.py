# Row 2b: as row 2, and each tag of a photograph has a proposal of its own: of
# the ten best the one that reads the tag best, in the place of the largest of
# three for all tags.
_base_ = './faster-rcnn_lite0_256_captions-tags.py'
model = dict(objectives=dict(tag=dict(regions='best', max_proposals=10)))
