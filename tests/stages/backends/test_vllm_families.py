"""Every family's tiny model says greedily in vLLM, to the token, what it says in transformers (docs/engines.md)."""

from contextlib import closing

import pytest

from mstar.execution import Execution
from mstar.stages.engines import open_sampler
from mstar.stages.protocols import Prompted
from mstar.tasks import Sampling
from tests.real_vllm import REAL_VLLM

tiny_families = pytest.importorskip("tests.models.tiny_families")

pytestmark = REAL_VLLM
GREEDY = Sampling(n=1, temperature=0, max_new_tokens=24)
SIZES = ((16, 16), (32, 16), (16, 48), (48, 32))


def make_prompts(count):
    return [
        Prompted(
            query_id=f"q{index}",
            text=tiny_families.TEXT[: 12 + 5 * index],
            image=tiny_families.draw_image(index, size=SIZES[index % len(SIZES)]),
            seeds=(index,),
        )
        for index in range(count)
    ]


def greedy(folder, engine):
    how = Execution(engine=engine, device="cpu", threads=1, sampling_rows=16)
    with closing(open_sampler(folder, how)) as sampler:
        return sampler.sample(make_prompts(12), GREEDY, "p", lambda count: None)


@pytest.mark.parametrize("name", sorted(tiny_families.FAMILIES))
def test_a_family_says_greedily_what_transformers_says(tmp_path, name):
    folder = tiny_families.build(name, tmp_path, width=128)
    assert greedy(folder, "vllm") == greedy(folder, "transformers")
