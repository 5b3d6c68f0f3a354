"""Stand-in for the published configuration of Phi-3.5-vision."""

from transformers import LlamaConfig


class Phi3VConfig(LlamaConfig):
    model_type = "phi3_v"

    def __init__(self, original_max_position_embeddings=256, image_dim_out=16, **options):
        self.original_max_position_embeddings = original_max_position_embeddings
        self.image_dim_out = image_dim_out
        super().__init__(**options)
