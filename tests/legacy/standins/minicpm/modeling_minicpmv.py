"""Stand-in for the published model: the same parts, arguments and conventions, tiny."""

import torch
from transformers import LlamaForCausalLM, LlamaPreTrainedModel

from .configuration_minicpm import MiniCPMVConfig


class Tower(torch.nn.Module):
    """Patches alone: a slice is (3, patch, rows * columns * patch)."""

    def __init__(self, patch, width):
        super().__init__()
        self.patch = patch
        self.read = torch.nn.Linear(3 * patch * patch, width)

    def forward(self, pixel_values, patch_attention_mask):
        rows, channels, patch, length = pixel_values.shape
        patches = pixel_values.reshape(rows, channels, patch, length // patch, patch)
        seen = self.read(patches.permute(0, 3, 1, 2, 4).flatten(2)).tanh()
        return seen * patch_attention_mask[:, 0, :, None]


class Resampler(torch.nn.Module):
    """Any number of patches as ``queries`` vectors; where a patch lies comes from the slice's size."""

    def __init__(self, queries, width, wide):
        super().__init__()
        self.query = torch.nn.Parameter(torch.randn(queries, wide))
        self.place = torch.nn.Linear(2, wide)
        self.kv_proj = torch.nn.Linear(width, wide)
        self.attn = torch.nn.MultiheadAttention(wide, 2, batch_first=True)

    def forward(self, seen, sizes):
        hidden = torch.ones(seen.shape[:2], dtype=torch.bool, device=seen.device)
        places = torch.zeros((*seen.shape[:2], 2), dtype=seen.dtype, device=seen.device)
        for index, (rows, columns) in enumerate(sizes.tolist()):
            hidden[index, : rows * columns] = False
            counted = torch.arange(rows * columns, device=seen.device)
            where = torch.stack([counted // columns, counted % columns], dim=1)
            places[index, : rows * columns] = where.to(seen.dtype)
        keys = self.kv_proj(seen)
        query = self.query[None].expand(len(seen), -1, -1)
        return self.attn(query, keys + self.place(places), keys, key_padding_mask=hidden)[0]


class MiniCPMV(LlamaPreTrainedModel):
    config_class = MiniCPMVConfig

    def __init__(self, config):
        super().__init__(config)
        self.llm = LlamaForCausalLM(config)
        self.vpm = Tower(config.patch_size, config.vision_width)
        self.resampler = Resampler(config.query_num, config.vision_width, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.llm.get_input_embeddings()

    def get_vllm_embedding(self, data):
        if "vision_hidden_states" in data:
            seen = data["vision_hidden_states"]
        else:
            seen = self._see(data["pixel_values"], data["tgt_sizes"])
        embedded = self.llm.model.embed_tokens(data["input_ids"])
        for row, states in enumerate(seen):
            if len(states) > 0:
                bounds = data["image_bound"][row]
                places = torch.stack([torch.arange(int(a), int(b)) for a, b in bounds])
                places = places.to(embedded.device).view(-1, 1).repeat(1, embedded.shape[-1])
                embedded[row].scatter_(0, places, states.reshape(-1, embedded.shape[-1]))
        return embedded, seen

    def _see(self, pixel_values, tgt_sizes):
        flat = [part.flatten(end_dim=1).permute(1, 0) for row in pixel_values for part in row]
        sizes = torch.vstack(tgt_sizes).type(torch.int32)
        most = int((sizes[:, 0] * sizes[:, 1]).max())
        padded = torch.nn.utils.rnn.pad_sequence(flat, batch_first=True)
        count, length, _ = padded.shape
        padded = padded.permute(0, 2, 1).reshape(count, 3, -1, length)
        mask = torch.zeros((count, 1, most), dtype=torch.bool, device=padded.device)
        for index in range(count):
            mask[index, :, : sizes[index][0] * sizes[index][1]] = True
        read = self.resampler(self.vpm(padded, patch_attention_mask=mask), sizes)
        return read.split([len(row) for row in pixel_values])

    def forward(self, data, **kwargs):
        embedded, _ = self.get_vllm_embedding(data)
        return self.llm(
            input_ids=None,
            position_ids=data["position_ids"].long(),
            inputs_embeds=embedded,
            **kwargs,
        )
