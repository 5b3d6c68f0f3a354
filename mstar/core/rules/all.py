"""Every right response (the paper's binary reward, section 3.2)."""

from mstar.core.rules import Rule

RULE = Rule(keep=lambda right, _: right, says="all right responses")
