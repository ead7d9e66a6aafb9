"""What RMFT trains: the agent of a configuration and its parameters."""

from rmft_jax.agents.scores import ScoreMap
from rmft_jax.agents.single_layer import BanditSingleLayer, FullInformationSingleLayer, SingleLayerAgent
from rmft_jax.agents.transformer import BanditTransformer, FullInformationTransformer, TransformerAgent
from rmft_jax.config import RMFTConfig, SingleLayerConfig, TransformerConfig
from rmft_jax.types import Params, ScalarKey

TrainedAgent = TransformerAgent | SingleLayerAgent


def init_params(config: RMFTConfig, key: ScalarKey) -> Params:
    """The parameters from which training starts: random weights, or those of the theory for the single layer."""
    policy, num_arms, full = config.policy, config.environment.num_arms, config.environment.feedback == "full"
    if isinstance(policy, SingleLayerConfig):
        return FullInformationSingleLayer.create(key, policy, num_arms).params  # The same under either feedback.
    assert isinstance(policy, TransformerConfig)
    kind = FullInformationTransformer if full else BanditTransformer
    return kind.create(key, policy, num_arms, config.horizon).params


def trained_agent(config: RMFTConfig, params: Params, *, explore: bool = False) -> TrainedAgent:
    """The policy as an agent; `explore` adds the temperature or the Gaussian noise of rollouts.

    Where rollouts play the scores themselves, the policy without exploration is their projection onto the ball.
    """
    policy, num_arms, full = config.policy, config.environment.num_arms, config.environment.feedback == "full"
    score_map = ScoreMap(config.decision_map, config.radius, config.exploration_std)
    if not explore:
        decision_map = "ball" if config.decision_map == "identity" else config.decision_map
        score_map = ScoreMap(decision_map, config.radius)
    if isinstance(policy, SingleLayerConfig):
        kind = FullInformationSingleLayer if full else BanditSingleLayer
        return kind(policy, num_arms, params, score_map)
    assert isinstance(policy, TransformerConfig)
    if full:
        return FullInformationTransformer(policy, num_arms, config.horizon, params, score_map)
    return BanditTransformer(policy, num_arms, config.horizon, params, config.temperature if explore else 1.0)
