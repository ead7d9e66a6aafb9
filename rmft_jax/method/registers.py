"""The registers of users' own code; each is a decorator, name first.

Whatever is registered can be named on the command line, in sweeps and in Python like what this package brings.
"""

from rmft_jax.agents.register import AGENTS

# By way of the settings, so that these are known before a user's class comes, which may not name its own alike.
from rmft_jax.method.settings import Environment, Objective, Policy, Selection

register_environment = Environment.register
register_agent = AGENTS
register_policy = Policy.register
register_selection = Selection.register
register_objective = Objective.register
