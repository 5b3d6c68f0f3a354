"""The recipe's parts: which tasks make a warm-up, a PRM, an iteration, a test, and what each passes on.

Steps carry no run name, and their seeds derive from the run's seed and the step's name. So two runs that differ only in
how they evolve ask for the same warm-up and the same PRM, and the second adopts what the first has committed. In
reading order: `records`, `making` (one task), `phases` (before evolving), `evolving`.
"""

from mstar.plan.evolving import Plan
from mstar.plan.records import Done, Inputs, Part, Step, Verifier, check_schedule

__all__ = ["Done", "Inputs", "Part", "Plan", "Step", "Verifier", "check_schedule"]
