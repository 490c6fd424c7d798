# As demo_captions-tags.py, and each tag of an image has a proposal of its own:
# of the ten best the one that reads the tag best, in the place of the largest
# of three for all tags (docs/ablation.md).
_base_ = './demo_captions-tags.py'
model = dict(objectives=dict(tag=dict(regions='best', max_proposals=10)))
