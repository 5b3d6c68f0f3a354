"""Stand-in for the published configuration of InternVL2."""

from transformers import PretrainedConfig


class InternVisionConfig(PretrainedConfig):
    model_type = "intern_vit_6b"

    def __init__(self, image_size=16, patch_size=4, hidden_size=16, **options):
        self.image_size = image_size
        self.patch_size = patch_size
        self.hidden_size = hidden_size
        super().__init__(**options)


class InternLM2Config(PretrainedConfig):
    model_type = "internlm2"

    def __init__(
        self, vocab_size=128, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, **options
    ):
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.max_position_embeddings = options.pop("max_position_embeddings", 512)
        super().__init__(**options)


class InternVLChatConfig(PretrainedConfig):
    model_type = "internvl_chat"

    def __init__(self, vision_config=None, llm_config=None, template=None, **options):
        self.vision_config = InternVisionConfig(**(vision_config or {}))
        self.llm_config = InternLM2Config(**(llm_config or {"architectures": [""]}))
        self.template = template
        self.force_image_size = options.pop("force_image_size", None)
        self.downsample_ratio = options.pop("downsample_ratio", 0.5)
        self.dynamic_image_size = options.pop("dynamic_image_size", True)
        self.use_thumbnail = options.pop("use_thumbnail", True)
        self.min_dynamic_patch = options.pop("min_dynamic_patch", 1)
        self.max_dynamic_patch = options.pop("max_dynamic_patch", 6)
        super().__init__(**options)
