"""The teaching world: digit pictures, questions about them, and a tiny model to evolve.

It uses the library; nothing in the library knows it. In reading order:

- `digits`: pictures of four real handwritten digits, split by source image
- `questions`: one to four operations on what a picture shows
- `prompts`: the templates that turn a question into a prompt
- `dataset`: the Parquet files of the demo
- `tokenizer`, `model`: a tiny Qwen2-VL made of stock classes
- `rationales`: the planted corpus, good and faulty solutions mixed
- `corpus`, `pretrain`: the base model, built from nothing
"""

from pathlib import Path

BASE_FOLDER = Path(__file__).parent / "base"
"""The base model that ships with the package: what `pretrain.build_base` writes."""
