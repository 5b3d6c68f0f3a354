"""Scored responses for tests, by hand and by Hypothesis."""

from hypothesis import strategies as st

from mstar.core.records import Finish, Grade, Response, Scored


def scored(sample, *, answer="1", correct=False, scores=(0.5,), query="q", text=None, tokens=()):
    response = Response(
        query_id=query,
        sample=sample,
        text=f"response {sample}" if text is None else text,
        tokens=tokens,
        finish=Finish.STOP,
        temperature=1.0,
        policy="p",
        seed=sample,
    )
    return Scored(
        response=response, grade=Grade(answer=answer, correct=correct), step_scores=tuple(scores)
    )


# Few values, so that ties, equal texts and equal answers are common.
SCORES = st.lists(st.sampled_from([-0.5, 0.0, 0.25, 0.5, 0.75, 1.0]), min_size=1, max_size=3)
ANSWERS = st.sampled_from(["1", "1.0", "2", "3", "two", None])


@st.composite
def groups(draw, query="q", min_size=0, max_size=12):
    """The responses to one query, samples 0, 1, ..., in any order."""
    size = draw(st.integers(min_size, max_size))
    items = []
    for sample in range(size):
        answer = draw(ANSWERS)
        items.append(
            scored(
                sample,
                query=query,
                answer=answer,
                correct=answer is not None and draw(st.booleans()),
                scores=draw(SCORES),
                text=draw(st.sampled_from(["a", "b\nc", "d\ne\nf", f"own {sample}"])),
            )
        )
    return draw(st.permutations(items))
