"""Stand-in for the published model: the same parts, arguments and conventions, tiny (crops of 8, not 336 pixels)."""

import torch
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_phi3_v import Phi3VConfig

CROP, GRID = 8, 2


class Phi3ImageEmbedding(torch.nn.Module):
    """Crops of an image become (rows of features with a separator, separator, the small copy)."""

    def __init__(self, config, wte):
        super().__init__()
        wide = config.image_dim_out
        self.wte = wte
        self.img_processor = torch.nn.Linear(3 * (CROP // GRID) ** 2, wide)
        self.glb_GN = torch.nn.Parameter(torch.randn(1, 1, wide))
        self.sub_GN = torch.nn.Parameter(torch.randn(1, 1, 1, wide))
        self.img_projection = torch.nn.Linear(wide, config.hidden_size)
        self.vocab_size = config.vocab_size

    def forward(self, input_ids, pixel_values, image_sizes=None):
        positions = torch.nonzero((input_ids < 0) & (input_ids > -(10**9)), as_tuple=True)
        # In place, as the code first published did.
        hidden = self.wte(input_ids.clamp_min_(0).clamp_max_(self.vocab_size))
        parts = []
        for crops, (height, width) in zip(pixel_values, image_sizes.tolist(), strict=True):
            rows, columns = height // CROP, width // CROP
            many = self.features(crops[1 : 1 + rows * columns], rows, columns)
            parts += [many, self.glb_GN[0], self.features(crops[:1], 1, 1)]
        return hidden.index_put(positions, self.img_projection(torch.cat(parts)))

    def features(self, crops, rows, columns):
        cell = CROP // GRID
        cells = crops.reshape(rows, columns, 3, GRID, cell, GRID, cell)
        cells = cells.permute(0, 3, 1, 5, 2, 4, 6).reshape(rows * GRID, columns * GRID, -1)
        seen = self.img_processor(cells).tanh()
        ends = self.sub_GN[0].expand(rows * GRID, 1, -1)
        return torch.cat([seen, ends], dim=1).flatten(0, 1)


class Phi3VModel(LlamaModel):
    config_class = Phi3VConfig

    def __init__(self, config):
        super().__init__(config)
        self.vision_embed_tokens = Phi3ImageEmbedding(config, wte=self.embed_tokens)

    def forward(
        self, input_ids=None, inputs_embeds=None, pixel_values=None, image_sizes=None, **kw
    ):
        if inputs_embeds is None and pixel_values is not None:
            inputs_embeds = self.vision_embed_tokens(input_ids, pixel_values, image_sizes)
        elif inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        return super().forward(inputs_embeds=inputs_embeds, **kw)


class Phi3VForCausalLM(LlamaPreTrainedModel):
    config_class = Phi3VConfig

    def __init__(self, config):
        super().__init__(config)
        if config._attn_implementation != "eager":
            raise ValueError("flash attention is not here")
        self.model = Phi3VModel(config)
        self.lm_head = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        return self.model.embed_tokens

    def get_output_embeddings(self):
        return self.lm_head

    def forward(self, input_ids=None, labels=None, **inputs):
        output = self.model(input_ids=input_ids, **inputs)
        logits = self.lm_head(output.last_hidden_state).float()
        loss = None
        if labels is not None:
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
            )
        return CausalLMOutputWithPast(
            loss=loss, logits=logits, past_key_values=output.past_key_values
        )
