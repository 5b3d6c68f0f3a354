"""What a run's process reward model is good for: a verifier, a reranker, a filter (paper, section 3.3 and figure 2).

Reading order: ``records`` (what is found), ``verifying``, ``preferring``, ``surviving`` (the three questions, pure),
``rubric`` (what a judge is asked, pure), ``asking`` (what to sample), ``making`` (having it sampled), ``reading``
(responses from the store), ``endpoint`` and ``judging`` (a judge of relevance), ``whole`` (``analyse``), ``sections``
and ``page`` (the HTML page).
"""
