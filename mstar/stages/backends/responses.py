"""A row of drawn tokens becomes a response: the same for every engine."""

from mstar.core.records import Finish, Response
from mstar.models.family import Family
from mstar.stages.protocols import Prompted
from mstar.tasks import Sampling


def respond(
    family: Family,
    prompt: Prompted,
    sample: int,
    drawn: tuple[int, ...],
    sampling: Sampling,
    policy: str,
) -> Response:
    """The response that ``drawn`` is, an end token included when the model gave one."""
    stopped = bool(drawn) and drawn[-1] in family.eos
    tokens = drawn[:-1] if stopped else drawn
    return Response(
        query_id=prompt.query_id,
        sample=sample,
        text=family.decode(tokens, prefix=prompt.prefix),
        tokens=tokens,
        finish=Finish.STOP if stopped else Finish.LENGTH,
        temperature=sampling.temperature,
        policy=policy,
        seed=prompt.seeds[sample],
        prefix=prompt.prefix_name,
    )
