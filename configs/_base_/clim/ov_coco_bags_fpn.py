# BARON's bags with an FPN: regions of six words.
_base_ = './ov_coco_bags.py'
clim_bag_objective = dict(bags=dict(num_words=6))
clim_distillation_objective = dict(bags=dict(num_words=6))
