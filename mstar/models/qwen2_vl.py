"""Qwen2-VL: patches of 14 pixels merged two by two, and a rotary embedding whose sections lie side by side."""

from mstar.models.qwen_vl import QwenVLFamily


class Qwen2VLFamily(QwenVLFamily):
    """Nothing but what the Qwen-VL models share: it is the first of them."""
