"""Stand-in for the published model: the same parts, arguments and conventions, tiny."""

import torch
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from .configuration_internvl_chat import InternVLChatConfig
from .conversation import get_conv_template
from .modeling_internlm2 import InternLM2ForCausalLM


class InternVisionModel(torch.nn.Module):
    def __init__(self, config):
        super().__init__()
        self.patch = torch.nn.Conv2d(3, config.hidden_size, config.patch_size, config.patch_size)
        self.place = torch.nn.Parameter(
            torch.randn(config.hidden_size, *[config.image_size // config.patch_size] * 2)
        )

    def forward(self, pixel_values):
        return (self.patch(pixel_values) + self.place).tanh().permute(0, 2, 3, 1)


class InternVLChatModel(PreTrainedModel):
    config_class = InternVLChatConfig
    main_input_name = "pixel_values"
    base_model_prefix = "language_model"

    def __init__(self, config):
        super().__init__(config)
        self.vision_model = InternVisionModel(config.vision_config)
        self.language_model = InternLM2ForCausalLM(config.llm_config)
        merged = int(config.vision_config.hidden_size / config.downsample_ratio**2)
        self.mlp1 = torch.nn.Linear(merged, config.llm_config.hidden_size)
        self.img_context_token_id = None
        self.conv_template = get_conv_template(config.template)
        self.system_message = self.conv_template.system_message
        self.post_init()

    def get_input_embeddings(self):
        return self.language_model.get_input_embeddings()

    def extract_feature(self, pixel_values):
        seen = self.vision_model(pixel_values)
        count, rows, columns, wide = seen.shape
        cells = seen.reshape(count, rows // 2, 2, columns // 2, 2, wide).permute(0, 1, 3, 2, 4, 5)
        return self.mlp1(cells.reshape(count, rows * columns // 4, -1))

    def forward(
        self,
        pixel_values,
        input_ids=None,
        attention_mask=None,
        position_ids=None,
        image_flags=None,
        past_key_values=None,
        labels=None,
        use_cache=None,
        return_dict=None,
    ):
        embedded = self.get_input_embeddings()(input_ids).clone()
        seen = self.extract_feature(pixel_values)[image_flags.squeeze(-1) == 1]
        embedded[input_ids == self.img_context_token_id] = seen.reshape(-1, embedded.shape[-1])
        outputs = self.language_model(
            inputs_embeds=embedded,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
        )
        return CausalLMOutputWithPast(
            logits=outputs.logits, past_key_values=outputs.past_key_values
        )
