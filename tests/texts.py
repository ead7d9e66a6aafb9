"""A language model that is small enough for tests, under the name `tiny`: importing this file registers it."""

import functools

import jax
import numpy as np

from rmft_jax.language.decoder import DecoderConfig, random_params
from rmft_jax.language.models import MAKERS, LanguageModel
from rmft_jax.language.toy import toy_tokenizer
from rmft_jax.method.settings import RMFTConfig, RunConfig


@functools.cache
def tiny_model() -> LanguageModel:
    tokenizer = toy_tokenizer()
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size,
        num_layers=1,
        width=12,
        mlp_width=16,
        num_heads=2,
        num_kv_heads=1,
        head_size=6,
        max_positions=4096,
    )
    params = jax.tree.map(np.asarray, random_params(config, jax.random.key(1), std=0.4))
    return LanguageModel("tiny", config, params, tokenizer, "tiny")


MAKERS["tiny"] = tiny_model

TEXT = RMFTConfig().replace(
    policy="text",
    model="tiny",
    tuned="all",
    num_arms=3,
    horizon=4,
    num_tellings=3,
    num_iterations=4,
    num_scenarios=4,
    num_rollouts=2,
    k=1,
    num_minibatches=1,
    entropy_weight=0.0,
    branching="none",
)
TEXT_RUN = RunConfig(TEXT, chunk_size=2, num_validation_scenarios=4, num_test_scenarios=8)
TEXT_WORDS = [
    "--model", "tiny", "--num-arms", "3", "--horizon", "4", "--num-tellings", "3", "--num-iterations", "4",
    "--num-scenarios", "4", "--num-rollouts", "2", "--num-minibatches", "1", "--chunk-size", "2",
    "--num-validation-scenarios", "4", "--num-test-scenarios", "8",
]  # fmt: skip
