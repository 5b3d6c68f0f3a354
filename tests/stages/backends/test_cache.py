"""The cache and the attention made for decoding compute what transformers' own do."""

import pytest
import torch
from transformers.cache_utils import Cache, DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from mstar.stages.backends.attention import grouped_attention
from mstar.stages.backends.cache import repeat_rows
from mstar.stages.backends.roomy import SPARE, RoomyLayer


def states(rows, tokens):
    return torch.randn(rows, 2, tokens, 4), torch.randn(rows, 2, tokens, 4)


def test_a_layer_with_room_holds_what_a_growing_one_holds():
    torch.manual_seed(0)
    plain = DynamicLayer()
    keys, values = states(3, 5)
    plain.update(keys, values)
    roomy = RoomyLayer(keys.clone(), values.clone(), 5)
    for step in range(2 * SPARE + 3):
        fresh = states(len(plain.keys), 1)
        for mine, theirs in zip(roomy.update(*fresh), plain.update(*fresh), strict=True):
            assert torch.equal(mine, theirs)
        assert roomy.get_seq_length() == plain.get_seq_length()
        assert roomy.get_mask_sizes(1) == plain.get_mask_sizes(1)
        if step == SPARE:
            rows = torch.tensor([2, 0])
            roomy.batch_select_indices(rows)
            plain.batch_select_indices(rows)


def test_repeated_rows_are_copies_of_their_prompt():
    layers = [DynamicLayer() for _ in range(2)]
    cache = Cache(layers=list(layers))
    kept = [layer.update(*states(2, 3)) for layer in layers]
    repeat_rows(cache, torch.tensor([1, 1, 0]))
    for layer, (keys, _) in zip(cache.layers, kept, strict=True):
        found, _ = layer.update(*states(3, 1))
        assert torch.equal(found[:, :, :3], keys[[1, 1, 0]])


@pytest.mark.parametrize(("heads", "queries"), [(4, 1), (2, 1), (4, 3)])
def test_grouped_attention_equals_attention_over_repeated_heads(heads, queries):
    torch.manual_seed(0)
    module = torch.nn.Module()
    module.num_key_value_groups = heads // 2
    query, (key, value) = torch.randn(5, heads, queries, 4), states(5, 7)
    mask = torch.rand(5, 1, queries, 7) > 0.3
    mask[..., 0] = True
    for given in (mask, None):
        mine, _ = grouped_attention(module, query, key, value, given, scaling=0.4)
        theirs, _ = sdpa_attention_forward(module, query, key, value, given, scaling=0.4)
        torch.testing.assert_close(mine, theirs)
