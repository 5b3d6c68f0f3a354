"""Stand-in for the published processor: an image fills whole crops, padded with empty ones to ``num_crops`` + 1."""

import re
from typing import ClassVar

import numpy as np
import torch
import transformers
from transformers import AutoImageProcessor, BatchFeature, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

CROP, GRID = 8, 2


class Phi3VImageProcessor(BaseImageProcessor):
    model_input_names: ClassVar = ["pixel_values"]

    def __init__(self, num_crops=1, num_img_tokens=144, **options):
        super().__init__(**options)
        self.num_crops = num_crops
        self.num_img_tokens = num_img_tokens

    def grid(self, width, height):
        columns = min(4, max(1, width // CROP))
        return columns, min(self.num_crops // columns, max(1, height // CROP))

    def calc_num_image_tokens_from_image_size(self, width, height):
        columns, rows = self.grid(width, height)
        return rows * GRID * (columns * GRID + 1) + 1 + GRID * (GRID + 1)

    def preprocess(self, images, return_tensors=None):
        (image,) = images
        columns, rows = self.grid(*image.size)
        whole = self.pixels(image.resize((columns * CROP, rows * CROP)))
        crops = whole.reshape(3, rows, CROP, columns, CROP).permute(1, 3, 0, 2, 4)
        crops = crops.reshape(-1, 3, CROP, CROP)
        padded = torch.zeros(self.num_crops + 1, 3, CROP, CROP)
        padded[0] = self.pixels(image.resize((CROP, CROP)))
        padded[1 : 1 + len(crops)] = crops
        tokens = self.calc_num_image_tokens_from_image_size(*image.size)
        sizes = [[rows * CROP, columns * CROP]]
        return {"pixel_values": padded[None], "image_sizes": sizes, "num_img_tokens": [tokens]}

    def pixels(self, image):
        return torch.from_numpy(np.asarray(image).astype("float32") / 127.5 - 1).permute(2, 0, 1)


AutoImageProcessor.register("Phi3VImageProcessor", Phi3VImageProcessor)
transformers.Phi3VImageProcessor = Phi3VImageProcessor


class Phi3VProcessor(ProcessorMixin):
    attributes: ClassVar = ["image_processor", "tokenizer"]
    image_processor_class = "Phi3VImageProcessor"
    tokenizer_class = "AutoTokenizer"

    def __init__(self, image_processor, tokenizer):
        self.image_processor = image_processor
        self.tokenizer = tokenizer

    def calc_num_image_tokens_from_image_size(self, width, height):
        return self.image_processor.calc_num_image_tokens_from_image_size(width, height)

    def __call__(self, text, images=None, return_tensors="pt"):
        seen = self.image_processor.preprocess(images)
        pattern = r"<\|image_\d+\|>"
        tags = [int(tag.split("_")[1].removesuffix("|>")) for tag in re.findall(pattern, text)]
        assert tags == [1], f"one image, and tags {tags}"
        before, after = (self.tokenizer(part).input_ids for part in re.split(pattern, text))
        ids = torch.tensor([[*before, *[-1] * seen["num_img_tokens"][0], *after]])
        return BatchFeature(
            {
                "input_ids": ids,
                "attention_mask": (ids > -1000000).to(torch.long),
                "pixel_values": seen["pixel_values"],
                "image_sizes": torch.tensor(seen["image_sizes"]),
            }
        )
