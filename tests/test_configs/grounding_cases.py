# Licensed under the Apache License, Version 2.0.
"""mmdet's grounding configs at a size for tests."""
from mmengine.config import Config, ConfigDict


def shrink_by_size(model: ConfigDict, bert: str) -> ConfigDict:
    """Make a Grounding DINO smaller, with all of its parts as they are.

    Args:
        model (ConfigDict): Of a config of this package.
        bert (str): Folder of the language model.
    """
    channels = list(model.neck.in_channels)
    _shrink_transformer(model, bert)
    if 'ResNet' in model.backbone.type:
        factor = model.backbone.base_channels // 4
        model.backbone.update(base_channels=4, init_cfg=None)
        model.neck.in_channels = [count // factor for count in channels]
        model.language_model.pop('package')  # a name takes its place
    else:
        model.backbone.update(
            embed_dims=4, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1])
        assert model.backbone.with_cp
    return model


def shrink_language_model(cfg: Config, bert: str) -> None:
    """Have the data workers of a config read texts as the small model does.

    Args:
        cfg (Config): Of mosaics as grounding data.
        bert (str): Folder of the language model.
    """
    step = cfg.train_dataloader.dataset.datasets[1].pipeline[-1]
    assert step.type == 'mmdet_clim.TokenizePrompts'
    step.language_model.name = bert


def shrink(model: ConfigDict, bert: str) -> ConfigDict:
    """Make a model of the config's kind that takes a second on a CPU.

    Args:
        model (ConfigDict): The ``model`` of a GLIP or Grounding DINO config.
        bert (str): Folder of the language model.
    """
    model.backbone = dict(
        type='mmdet.ResNet',
        depth=18,
        base_channels=4,
        out_indices=(1, 2, 3),
        norm_eval=True)
    model.language_model.name = bert
    if model.type == 'GLIP':
        model.neck.in_channels = [8, 16, 32]
        model.neck.start_level = 0
        model.bbox_head.update(lang_model_name=bert, num_dyhead_blocks=1)
        return model
    model.encoder.num_cp = 0
    return _shrink_transformer(model, bert)


def _shrink_transformer(model: ConfigDict, bert: str) -> ConfigDict:
    # mmdet writes the width of its sine embeddings, 256, into the code.
    model.language_model.name = bert
    model.num_queries = 20
    model.neck.in_channels = [8, 16, 32]
    model.encoder.num_layers = 1
    model.decoder.num_layers = 2
    model.encoder.fusion_layer_cfg.update(embed_dim=16, num_heads=2)
    for cfg in (model.encoder.layer_cfg, model.encoder.text_layer_cfg,
                model.decoder.layer_cfg):
        cfg.ffn_cfg.feedforward_channels = 16
    model.dn_cfg.group_cfg.num_dn_queries = 10
    model.test_cfg.max_per_img = 20
    return model
