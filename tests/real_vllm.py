"""What a test needs that runs the real vLLM: the package, time, and patience with its warnings."""

from importlib.util import find_spec

import pytest

REAL_VLLM = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vllm is not installed"),
    pytest.mark.filterwarnings("ignore"),
]
