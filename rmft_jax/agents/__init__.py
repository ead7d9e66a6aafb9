"""Who plays: one protocol for the Transformer and every classical algorithm."""

from rmft_jax.agents.adversarial import EXP3, EXP3IX, EXP3P, Rexp3, TsallisINF
from rmft_jax.agents.base import Agent
from rmft_jax.agents.bayes_optimal import BayesOptimal, bayes_optimal_regret
from rmft_jax.agents.catalogue import behavior_agent, make_agents, make_ball_baselines, make_baselines, reference_agent
from rmft_jax.agents.full_information import FTPL, FTRL, FollowTheLeader, Hedge
from rmft_jax.agents.index import (
    KLUCB,
    MOSS,
    UCB,
    BestArm,
    BestFixedArm,
    EpsilonGreedy,
    ExploreThenCommit,
    Greedy,
    Uniform,
)
from rmft_jax.agents.nonstationary import DiscountedThompson, DiscountedUCB, SlidingWindowUCB
from rmft_jax.agents.posterior import BetaIndex, BetaThompson, GaussianIndex, GaussianThompson
from rmft_jax.agents.projections import project_ball, project_simplex
from rmft_jax.agents.scores import ScoreMap
from rmft_jax.agents.single_layer import BanditSingleLayer, FullInformationSingleLayer, SingleLayerAgent
from rmft_jax.agents.trained import TrainedAgent, init_params, trained_agent
from rmft_jax.agents.transformer import BanditTransformer, FullInformationTransformer, TransformerAgent

__all__ = [
    "EXP3",
    "EXP3IX",
    "EXP3P",
    "FTPL",
    "FTRL",
    "KLUCB",
    "MOSS",
    "UCB",
    "Agent",
    "BanditSingleLayer",
    "BanditTransformer",
    "BayesOptimal",
    "BestArm",
    "BestFixedArm",
    "BetaIndex",
    "BetaThompson",
    "DiscountedThompson",
    "DiscountedUCB",
    "EpsilonGreedy",
    "ExploreThenCommit",
    "FollowTheLeader",
    "FullInformationSingleLayer",
    "FullInformationTransformer",
    "GaussianIndex",
    "GaussianThompson",
    "Greedy",
    "Hedge",
    "Rexp3",
    "ScoreMap",
    "SingleLayerAgent",
    "SlidingWindowUCB",
    "TrainedAgent",
    "TransformerAgent",
    "TsallisINF",
    "Uniform",
    "bayes_optimal_regret",
    "behavior_agent",
    "init_params",
    "make_agents",
    "make_ball_baselines",
    "make_baselines",
    "project_ball",
    "project_simplex",
    "reference_agent",
    "trained_agent",
]
