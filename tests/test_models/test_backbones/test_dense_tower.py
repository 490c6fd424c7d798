# Licensed under the Apache License, Version 2.0.
"""Global, dense and region features against open_clip and plain formulas."""
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from mmdet_clim.models.backbones import DenseImageTower
from mmdet_clim.registry import MODELS

NATIVE = dict(
    vit=32,
    vit_scaled=32,
    vit_average=32,
    vit_custom=32,
    resnet=64,
    timm_vit=160,
    timm_siglip=160,
    timm_eva=224,
    timm_convnext=160)
STRIDE = dict(resnet=32, timm_vit=16, timm_siglip=16, timm_eva=14)
STRIDE['timm_convnext'] = 32


def build(files, mode='value'):
    return DenseImageTower(*files, mode=mode).eval()


def images(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize('name', NATIVE)
def test_at_its_own_size_images_embed_as_with_open_clip(clip_files, name):
    import open_clip
    model, weights = clip_files(name)
    tower = MODELS.build(
        dict(
            type='mmdet_clim.DenseImageTower',
            model=model,
            pretrained=weights,
            mode='attention')).eval()
    clip = open_clip.create_model(f'tower-{name}', weights).eval()
    batch = images(2, 3, NATIVE[name], NATIVE[name])
    with torch.no_grad():
        torch.testing.assert_close(
            tower.encode_image(batch),
            clip.encode_image(batch, normalize=True),
            rtol=1e-4,
            atol=1e-5)
    assert tower.mean == tuple(clip.visual.preprocess_cfg['mean'])
    assert tower.embed_dim == (96 if name == 'timm_siglip' else 12)
    assert tower.stride == STRIDE.get(name, 8)


@pytest.mark.parametrize('name', NATIVE)
@pytest.mark.parametrize('mode', ['value', 'attention'])
def test_any_image_size_gives_unit_vectors(clip_files, name, mode):
    tower = build(clip_files(name), mode)
    stride = tower.stride
    batch = images(2, 3, 3 * stride + 1, 5 * stride - 1)
    dense = tower(batch)
    assert dense.shape == (2, tower.embed_dim, 4, 5)
    torch.testing.assert_close(dense.norm(dim=1), torch.ones(2, 4, 5))
    assert tower.encode_image(batch).shape == (2, tower.embed_dim)
    rois = torch.tensor([[1, 0, 0, 4. * stride, 3. * stride],
                         [0, 1, 1, 1.5, 1.5]])
    regions = tower.region_features(batch, rois)
    assert regions.shape == (2, tower.embed_dim)
    torch.testing.assert_close(regions.norm(dim=1), torch.ones(2))
    # The images' order is that of the RoIs' indices.
    torch.testing.assert_close(
        tower.region_features(
            batch[1:],
            rois[:1] * 0 + torch.tensor([0, 0, 0, 4. * stride, 3. * stride])),
        regions[:1],
        rtol=1e-4,
        atol=1e-5)
    taps = [0, tower.num_taps - 1]
    maps, _ = tower.encode(batch, taps)
    for tap, tapped in zip(taps, maps):
        assert tapped.shape[:2] == (2, tower.tap_channels[tap])
        expected = [
            -(-side // stride) * stride / tower.tap_strides[tap]
            for side in batch.shape[2:]
        ]
        assert list(tapped.shape[2:]) == expected


def plain_dense(visual, batch):
    """The formula of REFERENCE.md, section 4, token by token."""
    size = visual.patch_size[0]
    height, width = (side // size for side in batch.shape[2:])
    patches = F.unfold(batch, size, stride=size).transpose(1, 2)
    x = patches @ visual.conv1.weight.flatten(1).t()
    positions = visual.positional_embedding
    native = visual.grid_size
    grid = positions[1:].reshape(*native, -1).permute(2, 0, 1)[None]
    if (height, width) != native:
        grid = F.interpolate(grid, (height, width), mode='bicubic')
    x = x + grid.flatten(2).transpose(1, 2)
    first = (visual.class_embedding + positions[0]).expand(len(x), 1, -1)
    x = visual.ln_pre(torch.cat([first, x], 1))
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        x = block(x)
    outputs = []
    for token in x[:, 1:].unbind(1):
        # A sequence of one token can attend to nothing else.
        out = last(token[:, None])[:, 0]
        outputs.append(visual.ln_post(out) @ visual.proj)
    x = F.normalize(torch.stack(outputs, 2), dim=1)
    return x.reshape(len(x), -1, height, width)


@pytest.mark.parametrize('name', ['vit', 'vit_scaled', 'vit_custom'])
@pytest.mark.parametrize('shape', [(32, 32), (24, 56)])
def test_the_value_path_equals_the_formula(clip_files, name, shape):
    tower = build(clip_files(name))
    weight = .1 * images(2, 12, shape[0] // 8, shape[1] // 8, seed=1)
    found = []
    for run in (tower, lambda batch: plain_dense(tower.visual, batch)):
        tower.zero_grad()
        batch = images(2, 3, *shape).requires_grad_()
        dense = run(batch)
        (dense * weight).sum().backward()
        found.append([
            dense.detach(), batch.grad,
            *(p.grad for p in tower.parameters() if p.grad is not None)
        ])
    assert len(found[0]) == len(found[1]) > 30
    for ours, plain in zip(*found):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_dropped_patches_are_kept_and_checkpointing_changes_nothing(
        clip_files):
    tower = build(clip_files('vit_scaled'))
    batch = images(1, 3, 40, 40)
    expected = tower(batch)
    tower.train()
    torch.testing.assert_close(tower(batch), expected)
    tower.visual.set_grad_checkpointing(True)
    torch.testing.assert_close(tower(batch), expected)
    tower(batch).square().sum().backward()
    assert tower.visual.conv1.weight.grad is not None


def test_average_pooling_norms_each_position(clip_files):
    """With `final_ln_after_pool` a single position is its own average."""
    tower = build(clip_files('vit_average'), 'attention')
    patch = images(2, 3, 8, 8)
    torch.testing.assert_close(
        tower(patch)[:, :, 0, 0], tower.encode_image(patch))


def test_regions_are_roi_aligned_means_of_the_dense_map(clip_files):
    tower = build(clip_files('vit'))
    batch = images(2, 3, 40, 64)
    rois = torch.tensor([[1, 8, 8, 40, 24.], [0, 0, 0, 64, 40]])
    dense = tower(batch)
    expected = [dense[1, :, 1:3, 1:5], dense[0]]
    torch.testing.assert_close(
        tower.region_features(batch, rois),
        torch.stack(
            [F.normalize(part.mean((1, 2)), dim=0) for part in expected]),
        rtol=1e-4,
        atol=1e-5)


@pytest.mark.parametrize('name, mode', [
    *[(name, mode) for name in NATIVE for mode in ('value', 'attention')],
    ('vit', 'masked_pool'),
    ('resnet', 'masked_pool'),
])
def test_a_batch_is_what_its_images_are(clip_files, name, mode):
    """Of any memory layout, in training and in evaluation."""
    tower = build(clip_files(name), mode)
    side = tower.stride * 3
    batch = images(3, 3, side, side + tower.stride)
    # Not in the order of the images, one of which has none.
    corners = torch.tensor([[.1, .2, .9, .8], [0, 0, 1, 1], [.5, .4, .8, .9]])
    rois = torch.cat([torch.tensor([[2.], [0.], [2.]]), corners * side], 1)
    alone = rois.clone()
    alone[:, 0] = 0

    def features(pixels, regions):
        _, encoded = tower.encode(pixels)
        return (tower.image_embeddings_of(encoded),
                tower.dense_features_of(encoded),
                tower.region_features_of(encoded, regions))

    def gradients(found):
        weights = [p for p in tower.parameters() if p.requires_grad]
        found = sum((x * x[..., :1].detach()).sum() for x in found)
        return torch.autograd.grad(found, weights, materialize_grads=True)

    whole, dense, regions = features(batch, rois)
    found = gradients((whole, dense, regions))
    others = features(
        batch.to(memory_format=torch.channels_last),
        rois.t().contiguous().t())
    for x, y in zip((whole, dense, regions), others):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-4)
    singles = [
        features(image[None], alone[rois[:, 0] == number])
        for number, image in enumerate(batch)
    ]
    parts = [torch.cat(of) for of in zip(*singles)]
    parts[2] = parts[2][[1, 0, 2]]  # by images to by regions
    for x, y in zip((whole, dense, regions), parts):
        torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-4)
    for x, y in zip(found, gradients(parts)):
        torch.testing.assert_close(x, y, rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize('name', ['vit', 'vit_scaled', 'resnet'])
def test_masked_pool_of_the_whole_box_is_the_image(clip_files, name):
    tower = build(clip_files(name), 'masked_pool')
    batch = images(3, 3, 96, 64)
    rois = torch.tensor([[2, 0, 0, 64, 96.], [0, 0, 0, 64, 96]])
    torch.testing.assert_close(
        tower.region_features(batch, rois),
        tower.encode_image(batch)[[2, 0]],
        rtol=1e-4,
        atol=1e-5)


def test_masked_pool_equals_attention_with_a_mask(clip_files):
    """By open_clip's own block, with a mask for the class token."""
    tower = build(clip_files('vit'), 'masked_pool')
    batch = images(1, 3, 32, 48)
    _, encoded = tower.encode(batch)
    # Columns 1-3 of 6 and rows 0-1 of 4 have their centre in the box.
    inside = torch.zeros(4, 6, dtype=torch.bool)
    inside[:2, 1:4] = True
    mask = torch.zeros(25, 25)
    mask[0, 1:][~inside.flatten()] = float('-inf')
    visual = tower.visual
    x = visual.transformer.resblocks[-1](encoded.features, attn_mask=mask)
    expected = F.normalize(visual.ln_post(x[:, 0]) @ visual.proj, dim=1)
    roi = torch.tensor([[0, 10., -3., 29., 15.]])
    torch.testing.assert_close(
        tower.region_features(batch, roi), expected, rtol=1e-4, atol=1e-5)


def test_masked_pool_of_a_resnet_equals_the_pool_on_the_part(clip_files):
    """With one position for all, cells outside the box might not be there."""
    tower = build(clip_files('resnet'), 'masked_pool')
    attnpool = tower.visual.attnpool
    with torch.no_grad():
        attnpool.positional_embedding[1:] = attnpool.positional_embedding[1]
    batch = images(2, 3, 96, 128)
    (last, ), encoded = tower.encode(batch, [3])
    rois = torch.tensor([[1, 32, 0, 96, 64.], [0, 64, 32, 128, 96]])
    expected = attnpool(torch.stack([last[1, :, :2, 1:3], last[0, :, 1:, 2:]]))
    torch.testing.assert_close(
        tower.region_features_of(encoded, rois),
        F.normalize(expected, dim=1),
        rtol=1e-4,
        atol=1e-5)


def test_resnet_regions_go_through_the_attention_pool(clip_files):
    tower = build(clip_files('resnet'))
    batch = images(2, 3, 128, 96)
    (last, ), _ = tower.encode(batch, [3])
    # Two by two cells are the pool's own grid: RoIAlign copies them.
    rois = torch.tensor([[1, 32, 64, 96, 128.]])
    expected = tower.visual.attnpool(last[1:, :, 2:, 1:])
    torch.testing.assert_close(
        tower.region_features(batch, rois),
        F.normalize(expected, dim=1),
        rtol=1e-4,
        atol=1e-5)


def test_resnet_positions_by_value_and_by_attention(clip_files):
    """Of a single cell, the pool has nothing to mix."""
    batch = images(1, 3, 64, 64)
    for mode in ('value', 'attention'):
        tower = build(clip_files('resnet'), mode)
        (last, ), _ = tower.encode(batch, [3])
        pool = tower.visual.attnpool
        tokens = last.flatten(2).transpose(1,
                                           2) + pool.positional_embedding[1:]
        if mode == 'value':
            x = pool.v_proj(tokens)
        else:
            mean = last.mean((2, 3))[:, None] + pool.positional_embedding[:1]
            keys = torch.cat([mean, tokens], 1)
            q, k, v = pool.q_proj(tokens), pool.k_proj(keys), pool.v_proj(keys)
            q, k, v = (
                t.unflatten(2, (pool.num_heads, -1)).transpose(1, 2)
                for t in (q, k, v))
            weights = (q @ k.transpose(2, 3) / q.shape[-1]**.5).softmax(-1)
            x = (weights @ v).transpose(1, 2).flatten(2)
        expected = F.normalize(pool.c_proj(x), dim=2).transpose(1, 2)
        torch.testing.assert_close(
            tower(batch).flatten(2), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('name', ['timm_vit', 'timm_siglip', 'timm_eva'])
def test_timm_value_path_is_attention_to_itself(clip_files, name):
    """By the last block with a mask that leaves each token itself."""
    tower = build(clip_files(name))
    trunk, head = tower.visual.trunk, tower.visual.head
    batch = images(1, 3, 2 * tower.stride, 3 * tower.stride)
    before = tower.num_taps - 2
    (x, ), _ = tower.encode(batch, [before])
    x = x.flatten(2).transpose(1, 2)
    prefix = trunk.num_prefix_tokens
    padded = torch.cat([x[:, :1].expand(-1, prefix, -1), x], 1)
    alone = torch.eye(padded.shape[1], dtype=torch.bool)
    x = trunk.norm(trunk.blocks[-1](padded, attn_mask=alone))[:, prefix:]
    expected = []
    for token in x.unbind(1):
        whole = token[:, None].expand(-1, prefix + 1, -1)
        expected.append(head(trunk.forward_head(whole)))
    torch.testing.assert_close(
        tower(batch).flatten(2),
        F.normalize(torch.stack(expected, 2), dim=1),
        rtol=1e-4,
        atol=1e-5)


def test_convnext_average_of_one_cell_is_the_image(clip_files):
    tower = build(clip_files('timm_convnext'))
    cell = images(2, 3, 32, 32)
    torch.testing.assert_close(
        tower(cell)[:, :, 0, 0], tower.encode_image(cell))


@pytest.mark.parametrize('name, mode', [('vit', 'value'),
                                        ('vit', 'masked_pool'),
                                        ('resnet', 'value'),
                                        ('timm_eva', 'value')])
def test_no_regions_is_empty_and_connected(clip_files, name, mode):
    tower = build(clip_files(name), mode)
    regions = tower.region_features(images(1, 3, 64, 64), torch.zeros(0, 5))
    assert regions.shape == (0, tower.embed_dim)
    regions.sum().backward()
    assert any(p.grad is not None for p in tower.parameters())


def test_under_autocast_vectors_are_float32_units(clip_files):
    for name in ('vit', 'resnet'):
        tower = build(clip_files(name))
        with torch.autocast('cpu', dtype=torch.bfloat16):
            dense = tower(images(1, 3, 64, 64))
            regions = tower.region_features(
                images(1, 3, 64, 64), torch.tensor([[0, 0, 0, 40., 40.]]))
        assert dense.dtype == regions.dtype == torch.float32
        torch.testing.assert_close(regions.norm(dim=1), torch.ones(1))


@pytest.mark.parametrize('name, mode, message', [
    ('coca', 'value', 'learned queries'),
    ('timm_resnet', 'value', 'ResNet of timm'),
    ('timm_vit', 'masked_pool', 'not for a VisionTransformer of timm'),
    ('vit_average', 'masked_pool', 'class token'),
    ('vit', 'values', "expected one of .*'values'"),
])
def test_towers_and_modes_that_do_not_fit(clip_files, name, mode, message):
    with pytest.raises(ValueError, match=message):
        DenseImageTower(*clip_files(name), mode=mode)


def test_names_and_checkpoints_that_do_not_fit(clip_files, tmp_path):
    model, weights = clip_files('vit')
    with pytest.raises(ValueError, match="did you mean .*'ViT-B-16'"):
        DenseImageTower('ViT-B-17')
    with pytest.raises(FileNotFoundError, match='no.json'):
        DenseImageTower('no.json')
    with pytest.raises(ValueError, match="missing .*'embed_dim'"):
        (tmp_path / 'bad.json').write_text('{}')
        DenseImageTower(str(tmp_path / 'bad.json'))
    with pytest.raises(ValueError, match='another model of the name'):
        (tmp_path / 'ViT-B-16.json').write_text(open(model).read())
        DenseImageTower(str(tmp_path / 'ViT-B-16.json'))
    with pytest.raises(ValueError, match="neither a file.*'openai'"):
        DenseImageTower('ViT-B-16', 'no-such-tag')
    with pytest.raises(ValueError) as caught:
        DenseImageTower(clip_files('resnet')[0], weights)
    text = str(caught.value)
    assert "missing keys: ['visual.bn1.weight'" in text
    assert "unexpected keys: ['visual.class_embedding'" in text
    assert 'visual.conv1.weight (32, 3, 8, 8) instead of (4, 3, 3, 3)' in text
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / 'jit')
    with pytest.raises(ValueError, match='a TorchScript archive'):
        DenseImageTower(model, str(tmp_path / 'jit'))


@pytest.mark.parametrize('name', ['vit', 'vit_custom'])
@pytest.mark.parametrize('of_model', [False, True])
def test_weights_run_with_either_activation(clip_files, tmp_path, name,
                                            of_model):
    """Whatever the model says, as open_clip runs them with it."""
    import open_clip
    config, weights = clip_files(name)
    content = json.loads(Path(config).read_text())
    file = tmp_path / f'{name}-gelu-{of_model}.json'
    file.write_text(json.dumps(dict(content, quick_gelu=of_model)))
    batch = images(2, 3, 32, 32)
    found = {}
    for option in (None, True, False):
        tower = DenseImageTower(str(file), weights, quick_gelu=option).eval()
        own = of_model if option is None else option
        clip = open_clip.create_model(
            Path(config).stem, weights, force_quick_gelu=own).eval()
        with torch.no_grad():
            found[option] = tower.encode_image(batch)
            torch.testing.assert_close(
                found[option], F.normalize(clip.encode_image(batch), dim=1))
    assert (found[True] - found[False]).abs().max() > 1e-4
    assert torch.equal(found[None], found[of_model])


@pytest.mark.parametrize('name', ['resnet', 'timm_vit'])
def test_another_tower_has_no_choice_of_activation(clip_files, name):
    with pytest.raises(ValueError, match='quick_gelu: expected a VisionTrans'):
        DenseImageTower(*clip_files(name), quick_gelu=True)
