"""Stand-in for the published configuration of MiniCPM-Llama3-V-2.5."""

from transformers import LlamaConfig


class MiniCPMVConfig(LlamaConfig):
    model_type = "minicpmv"

    def __init__(self, query_num=4, patch_size=4, vision_width=16, **options):
        self.query_num = query_num
        self.patch_size = patch_size
        self.vision_width = vision_width
        super().__init__(**options)
