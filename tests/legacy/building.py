"""Tiny model folders with code of their own, of the interface of the paper's three models.

The published code cannot be had here. What these folders hold is written anew to the same interface: names, arguments,
tokens, shapes and caches. Ids of characters are those of ``tests.tiny``.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from tests.tiny import CHARACTERS, IMAGE, SPECIAL, VIDEO

STANDINS = Path(__file__).parent / "standins"
KINDS = ("minicpm", "phi3v", "internvl")

OWN_TOKENS = {
    "minicpm": ("<image>", "</image>", "<slice>", "</slice>", "<|eot_id|>"),
    "phi3v": ("<|image|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "internvl": ("<IMG_CONTEXT>", "<img>", "</img>"),
}
CHAT = {
    "minicpm": "{% for m in messages %}{{ m['content'] }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}{{ '\n' }}{% endif %}",
    "phi3v": "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{- '<|assistant|>\n' -}}{% endif %}",
}
CODE = {
    "minicpm": {
        "AutoConfig": "configuration_minicpm.MiniCPMVConfig",
        "AutoModel": "modeling_minicpmv.MiniCPMV",
        "AutoModelForCausalLM": "modeling_minicpmv.MiniCPMV",
    },
    "phi3v": {
        "AutoConfig": "configuration_phi3_v.Phi3VConfig",
        "AutoModelForCausalLM": "modeling_phi3_v.Phi3VForCausalLM",
    },
    "internvl": {
        "AutoConfig": "configuration_internvl_chat.InternVLChatConfig",
        "AutoModel": "modeling_internvl_chat.InternVLChatModel",
    },
}
PROCESSING = {
    "minicpm": {
        "AutoProcessor": "processing_minicpmv.MiniCPMVProcessor",
        "AutoImageProcessor": "processing_minicpmv.MiniCPMVImageProcessor",
    },
    "phi3v": {
        "AutoProcessor": "processing_phi3_v.Phi3VProcessor",
        "AutoImageProcessor": "processing_phi3_v.Phi3VImageProcessor",
    },
}
PIXELS: dict[str, dict[str, Any]] = {
    "minicpm": {"image_processor_type": "MiniCPMVImageProcessor", "max_slice_nums": 3},
    "phi3v": {"image_processor_type": "Phi3VImageProcessor", "num_crops": 4},
    "internvl": {"image_processor_type": "CLIPFeatureExtractor", "crop_size": 16},
}
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
}


def build_standin(folder: Path, kind: str, *, seed: int = 0, architecture: str = "") -> Path:
    """Write the folder and return it. ``architecture`` renames InternVL's language model."""
    import torch
    from huggingface_hub import save_torch_state_dict
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

    shutil.copytree(STANDINS / kind, folder, ignore=shutil.ignore_patterns("__pycache__"))
    tokenizer = _tokenizer(kind)
    tokenizer.save_pretrained(folder)
    pixels = PIXELS[kind] | ({"auto_map": PROCESSING[kind]} if kind in PROCESSING else {})
    _write(folder / "preprocessor_config.json", pixels)
    _write(folder / "config.json", _config(kind, len(tokenizer), architecture))
    torch.manual_seed(seed)
    loader = AutoModelForCausalLM if "AutoModelForCausalLM" in CODE[kind] else AutoModel
    config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
    how = {"attn_implementation": "eager"} if kind == "phi3v" else {}
    model = loader.from_config(config, trust_remote_code=True, **how)
    with torch.no_grad():
        for parameter in model.parameters():
            # As spread as a trained model's, so that different inputs say different things.
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
    save_torch_state_dict(model.state_dict(), folder, metadata={"format": "pt"})
    return folder


def _write(file: Path, value: dict[str, Any]) -> None:
    file.write_text(json.dumps(value, indent=1))


def _config(kind: str, words: int, architecture: str) -> dict[str, Any]:
    text: dict[str, Any] = TEXT | {"vocab_size": words}
    code: dict[str, Any] = {"auto_map": CODE[kind]}
    if kind == "minicpm":
        return text | code | {"model_type": "minicpmv", "query_num": 4, "patch_size": 4}
    if kind == "phi3v":
        more = {"model_type": "phi3_v", "original_max_position_embeddings": 256}
        return text | code | more | {"_attn_implementation": "flash_attention_2"}
    return code | {
        "model_type": "internvl_chat",
        "llm_config": text | {"architectures": [architecture or "InternLM2ForCausalLM"]},
        "vision_config": {"image_size": 16, "patch_size": 4, "hidden_size": 16},
        "template": "internlm2-chat",
        "force_image_size": 16,
        "max_dynamic_patch": 4,
    }


def _tokenizer(kind: str) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    own = OWN_TOKENS[kind]
    tokens = (*SPECIAL, IMAGE, VIDEO, *CHARACTERS, *own)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        additional_special_tokens=[*SPECIAL[4:], IMAGE, VIDEO, *own],
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    tokenizer.chat_template = CHAT.get(kind)
    return tokenizer
