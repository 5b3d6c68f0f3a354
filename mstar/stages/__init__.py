"""The four stages and the programs that run them.

Read ``protocols`` (what a stage asks of an engine), ``context`` (what a stage is given), ``inputs`` (queries, prompts,
responses), then ``generate``, ``score``, ``train`` (over ``interim``, checkpoints inside a step, and ``gang``, several
machines), ``evaluate``, and ``run`` (one task) and ``worker`` (many).
"""
