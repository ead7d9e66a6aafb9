"""Who plays: one protocol for trained policies and every classical algorithm."""

from rmft_jax.agents.adversarial import EXP3, EXP3IX, EXP3P, Rexp3, TsallisINF
from rmft_jax.agents.base import Agent, TrainedAgent
from rmft_jax.agents.bayes_optimal import BayesOptimal, bayes_optimal_regret
from rmft_jax.agents.catalogue import make_agents, make_baselines, reference_agent
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
from rmft_jax.agents.policy import Policy
from rmft_jax.agents.posterior import BetaIndex, BetaThompson, GaussianIndex, GaussianThompson
from rmft_jax.agents.recurrent import RecurrentPolicy
from rmft_jax.agents.single_layer import BanditSingleLayer, FullInformationSingleLayer, SingleLayer, SingleLayerAgent
from rmft_jax.agents.statistics import IndexAgent, StatisticsAgent
from rmft_jax.agents.transformer import BanditTransformer, FullInformationTransformer, Transformer, TransformerAgent

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
    "IndexAgent",
    "Policy",
    "RecurrentPolicy",
    "Rexp3",
    "SingleLayer",
    "SingleLayerAgent",
    "SlidingWindowUCB",
    "StatisticsAgent",
    "TrainedAgent",
    "Transformer",
    "TransformerAgent",
    "TsallisINF",
    "Uniform",
    "bayes_optimal_regret",
    "make_agents",
    "make_baselines",
    "reference_agent",
]
