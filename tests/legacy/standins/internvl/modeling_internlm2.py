"""Stand-in for the published language model: keys and values come and go as tuples, one pair a layer."""

from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from .configuration_internvl_chat import InternLM2Config


def turned(states, positions):
    """Rotary positions: states (rows, heads, tokens, size)."""
    half = states.shape[-1] // 2
    rates = 10000.0 ** (-torch.arange(half, device=states.device) / half)
    angles = (positions[..., None].float() * rates)[:, None]
    first, second = states[..., :half], states[..., half:]
    cos, sin = angles.cos().to(states.dtype), angles.sin().to(states.dtype)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


class Layer(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.num_attention_heads
        self.norm = torch.nn.LayerNorm(config.hidden_size)
        self.wqkv = torch.nn.Linear(config.hidden_size, 3 * config.hidden_size, bias=False)
        self.wo = torch.nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.w1 = torch.nn.Linear(config.hidden_size, 2 * config.hidden_size)
        self.w2 = torch.nn.Linear(2 * config.hidden_size, config.hidden_size)

    def forward(self, hidden, mask, position_ids, past_key_value):
        rows, tokens, wide = hidden.shape
        parts = self.wqkv(self.norm(hidden)).chunk(3, dim=-1)
        query, key, value = (p.view(rows, tokens, self.heads, -1).transpose(1, 2) for p in parts)
        query, key = turned(query, position_ids), turned(key, position_ids)
        if past_key_value is not None:
            key = torch.cat([past_key_value[0], key], dim=2)
            value = torch.cat([past_key_value[1], value], dim=2)
        scores = query @ key.transpose(2, 3) / query.shape[-1] ** 0.5
        seen = (scores + mask).softmax(dim=-1) @ value
        hidden = hidden + self.wo(seen.transpose(1, 2).reshape(rows, tokens, wide))
        return hidden + self.w2(torch.nn.functional.silu(self.w1(hidden))), (key, value)


class InternLM2PreTrainedModel(PreTrainedModel):
    config_class = InternLM2Config
    supports_gradient_checkpointing = True


class InternLM2Model(InternLM2PreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.tok_embeddings = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = torch.nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = torch.nn.LayerNorm(config.hidden_size)
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self):
        return self.tok_embeddings

    def forward(
        self,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        past_key_values=None,
        inputs_embeds=None,
        use_cache=None,
        return_dict=None,
    ):
        hidden = self.tok_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        rows, tokens = hidden.shape[:2]
        before = 0 if past_key_values is None else past_key_values[0][0].shape[2]
        if position_ids is None:
            position_ids = torch.arange(before, before + tokens, device=hidden.device)[None]
        if attention_mask is None:
            attention_mask = torch.ones((rows, before + tokens), device=hidden.device)
        later = torch.ones((tokens, before + tokens), device=hidden.device).triu(before + 1).bool()
        unseen = later | ~attention_mask.bool()[:, None, None, :]
        mask = torch.zeros(unseen.shape, device=hidden.device, dtype=hidden.dtype)
        mask = mask.masked_fill(unseen, torch.finfo(hidden.dtype).min)
        kept: tuple[Any, ...] = ()
        for index, layer in enumerate(self.layers):
            past = None if past_key_values is None else past_key_values[index]
            if self.gradient_checkpointing and self.training:
                found = torch.utils.checkpoint.checkpoint(layer, hidden, mask, position_ids, past)
            else:
                found = layer(hidden, mask, position_ids, past)
            hidden, pair = found
            kept += (pair,)
        return BaseModelOutputWithPast(
            last_hidden_state=self.norm(hidden), past_key_values=kept if use_cache else None
        )


class InternLM2ForCausalLM(InternLM2PreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = InternLM2Model(config)
        self.output = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.tok_embeddings

    def get_output_embeddings(self):
        return self.output

    def forward(self, **inputs):
        outputs = self.model(**inputs)
        logits = self.output(outputs.last_hidden_state).float()
        return CausalLMOutputWithPast(logits=logits, past_key_values=outputs.past_key_values)
