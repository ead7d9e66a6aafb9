"""A language model as a policy that RMFT trains, by the name `text`."""

import functools
import hashlib
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from rmft_jax.agents import Agent, Policy, TrainedAgent
from rmft_jax.config import Fixed, Number, Params, ScalarKey
from rmft_jax.language.agent import LanguageAgent
from rmft_jax.language.decoder import param_shapes
from rmft_jax.language.library import Library, make_library
from rmft_jax.language.lora import init_adapters
from rmft_jax.language.models import LanguageModel, load_model
from rmft_jax.language.narration import Narrated
from rmft_jax.language.settings import TextSettings
from rmft_jax.problems import DecisionMap, Problem


@Policy.register("text")
class Text(TextSettings):
    """A language model: problems are told in words, and it thinks and answers in its own."""

    has_fixed: ClassVar[bool] = True

    def init_params(self, key: ScalarKey, problem: Problem) -> Params:
        """The model's weights, or adapters that change nothing yet."""
        del problem
        model = self.loaded
        if self.tuned == "lora":
            return init_adapters(model.config, self.lora_rank, key)
        return jax.tree.map(jnp.asarray, model.params)

    def fixed_params(self, problem: Problem) -> Fixed:
        """The tables of the problem and, where adapters are trained, the weights of the model."""
        return {"model": self._still_weights(), "library": self._library(problem)}

    @property
    def foundation(self) -> str:
        """Adapters mean nothing without the weights that they adapt; all weights need the same tokens only."""
        model = self.loaded
        if self.tuned == "lora":
            return f"{model.digest} with lora_alpha={self.lora_alpha:g}"
        return f"tokens {_token_digest(self.model)}"

    def joined(self, params: Params, fixed: Fixed | None) -> Fixed:
        return {"params": params, "fixed": fixed}

    def make_agent(
        self, params: Any, problem: Problem, decision_map: DecisionMap, temperature: Number = 1.0
    ) -> TrainedAgent:
        del problem, decision_map
        model, fixed = self.loaded, jax.tree.map(jnp.asarray, params["fixed"])
        return LanguageAgent(model.config, self, params["params"], fixed["model"], fixed["library"], temperature)

    def narrated(self, agent: Agent, problem: Problem, fixed: Fixed | None) -> Agent:
        """The play of another agent as a dialogue."""
        tables: Any = self.fixed_params(problem) if fixed is None else fixed
        return Narrated(self, agent, jax.tree.map(jnp.asarray, tables["library"]))

    def round_flops(self, problem: Problem) -> float:
        """Two for every weight and token of a round; a thought counts in full."""
        del problem
        sizes = jax.tree.leaves(param_shapes(self.loaded.config), is_leaf=lambda x: isinstance(x, tuple))
        return 2.0 * (16 + self.reasoning + self.num_free) * sum(map(math.prod, sizes))

    @property
    def loaded(self) -> LanguageModel:
        """The model.

        Raises:
          ConfigError: if there is none of this name, or its files are damaged.
        """
        return load_model(self.model)

    def _still_weights(self) -> Any:
        if self.tuned == "all":
            return None
        return _weights_as(self.model, self.weights_dtype)

    def _library(self, problem: Problem) -> Library:
        return make_library(
            problem,
            self.loaded.tokenizer,
            contexts=self.contexts,
            num_tellings=self.num_tellings,
            history=self.history,
            free=self.num_free,
            reasoning=self.reasoning,
            num_outputs=self.loaded.config.vocab_size,
        )

    def validate(self) -> None:
        super().validate()
        _ = self.loaded  # Which says what is wrong with it.


@functools.cache
def _token_digest(name: str) -> str:
    """Which text every token of a model stands for."""
    tokenizer = load_model(name).tokenizer
    texts = "\0".join(tokenizer.decode([token]) for token in range(tokenizer.vocab_size))
    return hashlib.sha256(texts.encode()).hexdigest()[:16]


@functools.lru_cache(maxsize=2)
def _weights_as(name: str, dtype: str) -> Any:
    """Weights of a model in another precision, as NumPy arrays, which are kept."""
    return jax.tree.map(lambda leaf: np.asarray(leaf, jnp.dtype(dtype)), load_model(name).params)
