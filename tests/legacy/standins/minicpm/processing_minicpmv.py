"""Stand-in for the published processor: a source image and up to ``max_slice_nums`` slices, each of its own size."""

from typing import ClassVar

import numpy as np
import torch
from transformers import BatchFeature, ProcessorMixin
from transformers.image_processing_utils import BaseImageProcessor

PLACEHOLDER = "(<image>./</image>)"


class MiniCPMVImageProcessor(BaseImageProcessor):
    model_input_names: ClassVar = ["pixel_values"]

    def __init__(self, max_slice_nums=9, scale_resolution=16, patch_size=4, **options):
        super().__init__(**options)
        self.max_slice_nums = max_slice_nums
        self.scale_resolution = scale_resolution
        self.patch_size = patch_size
        self.image_feature_size = options.pop("image_feature_size", 4)
        self.version = options.pop("version", 2.5)

    def columns(self, size):
        """How many slices, side by side; none when the image is small."""
        many = min(size[0] * size[1] // self.scale_resolution**2, self.max_slice_nums)
        return many if many > 1 else 0

    def fitted(self, image):
        patch, most = self.patch_size, self.scale_resolution
        width, height = (max(patch, min(most, side // patch * patch)) for side in image.size)
        return image.resize((width, height))

    def get_slice_image_placeholder(self, size):
        each = "<image>" + "<unk>" * self.image_feature_size + "</image>"
        columns = self.columns(size)
        return each + ("<slice>" + each * columns + "</slice>" if columns else "")

    def by_patch(self, image):
        pixels = torch.from_numpy(np.asarray(image).astype("float32") / 127.5 - 1).permute(2, 0, 1)
        patch = self.patch_size
        parts = torch.nn.functional.unfold(pixels[None], (patch, patch), stride=(patch, patch))[0]
        return parts.reshape(3, patch, patch, -1).permute(0, 1, 3, 2).reshape(3, patch, -1)

    def preprocess(self, images, return_tensors=None):
        (image,) = images
        width, height = image.size
        columns = self.columns(image.size)
        step = width / max(columns, 1)
        cuts = [
            image.crop((int(c * step), 0, int(c * step + step), height)) for c in range(columns)
        ]
        parts = [self.fitted(part) for part in (image, *cuts)]
        patch = self.patch_size
        return {
            "pixel_values": [[self.by_patch(part) for part in parts]],
            "image_sizes": [[image.size]],
            "tgt_sizes": [torch.tensor([(p.height // patch, p.width // patch) for p in parts])],
        }


class MiniCPMVProcessor(ProcessorMixin):
    attributes: ClassVar = ["image_processor", "tokenizer"]
    image_processor_class = "AutoImageProcessor"
    tokenizer_class = "AutoTokenizer"

    def __init__(self, image_processor=None, tokenizer=None):
        super().__init__(image_processor, tokenizer)

    def __call__(self, text, images=None, max_length=None, return_tensors="pt"):
        seen = self.image_processor.preprocess(images)
        placeholder = self.image_processor.get_slice_image_placeholder(seen["image_sizes"][0][0])
        before, after = text.split(PLACEHOLDER)
        ids = self.tokenizer.encode(before + placeholder + after)[:max_length]
        ids = torch.tensor(ids, dtype=torch.int32)
        start, end = (self.tokenizer.convert_tokens_to_ids(t) for t in ("<image>", "</image>"))
        starts, ends = torch.where(ids == start)[0] + 1, torch.where(ids == end)[0]
        bounds = torch.hstack([starts.unsqueeze(-1), ends.unsqueeze(-1)])
        return BatchFeature({**seen, "input_ids": ids.unsqueeze(0), "image_bound": [bounds]})
