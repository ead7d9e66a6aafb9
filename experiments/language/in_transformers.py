"""The same dialogues played with `transformers`, as a rival in speed.

Annotations tell shapes: `B` dialogues side by side, `N` tokens of a call, `V` the vocabulary.
"""

from typing import Any

import jax
import numpy as np
import torch  # pyright: ignore[reportMissingImports]
import transformers  # pyright: ignore[reportMissingImports]
from jaxtyping import Bool, Float, Int
from torch import Tensor  # pyright: ignore[reportMissingImports]

from rmft_jax.language.library import EMPTY
from rmft_jax.language.loading import find_smollm2
from rmft_jax.language.policy import Text
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.problems import Stationary

_NOTHING: Any = None


class InTransformers:
    """SmolLM2 in float32 plays problems of prior `fixed_gap`, told in words, in one batch.

    Args:
      config: of the problem, and of how it is told. Adapters, which change nothing before training, are left out.

    Keys and values stay from round to round, and dialogues that are told alike share those of the rules.
    """

    def __init__(self, config: RMFTConfig):
        policy, problem = config.policy, config.problem()
        environment = problem.environment
        assert isinstance(policy, Text)
        assert isinstance(environment, Stationary)
        fixed: Any = policy.fixed_params(problem)
        self._tables = jax.tree.map(np.asarray, fixed["library"])
        self._size, self._alike = config.num_scenarios * config.num_rollouts, config.num_rollouts
        self._gap, self._horizon, self._room = float(environment.gap), config.horizon, policy.reasoning
        self._temperature = config.temperature
        self._rng = np.random.default_rng(0)
        file = find_smollm2()
        load = transformers.AutoModelForCausalLM.from_pretrained
        self._model: Any = load(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
        self.tokens = 0

    @torch.inference_mode()
    def rollout(self) -> None:
        """All rollouts of an iteration; `tokens` are those of their rounds, without the rules."""
        tables, size, rng = self._tables, self._size, self._rng
        telling = np.repeat(rng.integers(tables.num_tellings, size=size // self._alike), self._alike)
        best = np.repeat(rng.integers(tables.num_arms, size=size // self._alike), self._alike)
        ask, names = tables.ask[telling], tables.answers[telling]
        cue = tables.think[telling] if self._room else ask
        texts, news, after = _Texts(self._model, tables.intro, telling), cue, cue
        for _ in range(self._horizon):
            logits = texts.read(news)
            if self._room:
                texts.write(logits, tables.ends, self._room)
                logits = texts.read(ask)
            arms = logits.gather(1, torch.as_tensor(names[:, :, 0], dtype=torch.long))
            action = torch.multinomial((arms / self._temperature).softmax(-1), 1)[:, 0].numpy()
            paid = rng.random(size) < 0.5 + np.where(action == best, self._gap, -self._gap) / 2
            told = tables.told[telling, action, paid.astype(int)]
            after = np.concatenate([names[np.arange(size), action], told], axis=1)
            news = np.concatenate([after, cue], axis=1)
        self.tokens = texts.tokens + int((after != EMPTY).sum())


class _Texts:
    """Texts that grow side by side, with a cache of what was read.

    Args:
      model: of `transformers`.
      intros: rules of every telling, read here once for all texts that begin with them.
      telling: `[B]` which rules each text begins with.
    """

    def __init__(self, model: Any, intros: Int[np.ndarray, "S I"], telling: Int[np.ndarray, "B"]):
        self._model, self._cache = model, _NOTHING
        self._real: Bool[np.ndarray, "B n"] = np.zeros((len(intros), 0), bool)
        self._feed(intros)
        self._cache.batch_select_indices(torch.as_tensor(telling))
        self._real = self._real[telling]
        self.tokens = 0

    def read(self, rows: Int[np.ndarray, "B N"]) -> Float[Tensor, "B V"]:
        """Adds tokens; logits of what comes next."""
        self.tokens += int((rows != EMPTY).sum())
        return self._feed(rows)

    def write(self, logits: Float[Tensor, "B V"], ends: Bool[np.ndarray, "V"], room: int) -> None:
        """Draws tokens until each text has met what ends it, and reads them."""
        over = np.zeros(len(logits), bool)
        for _ in range(room):
            token = torch.multinomial(logits.softmax(-1), 1).numpy()
            over |= ends[token[:, 0]]
            if over.all():
                return
            logits = self.read(np.where(over[:, None], EMPTY, token))

    def _feed(self, rows: Int[np.ndarray, "B N"]) -> Float[Tensor, "B V"]:
        """Reads tokens, moved to the ends of their rows, into the cache."""
        order = np.argsort(rows != EMPTY, axis=1, kind="stable")
        rows = np.take_along_axis(rows, order, axis=1)[:, -max(1, int((rows != EMPTY).sum(axis=1).max())) :]
        real = np.concatenate([self._real, rows != EMPTY], axis=1)
        positions = np.maximum(real.cumsum(axis=1) - 1, 0)[:, -rows.shape[1] :]
        out = self._model(
            input_ids=torch.as_tensor(np.maximum(rows, 0), dtype=torch.long),
            attention_mask=torch.as_tensor(real, dtype=torch.long),
            position_ids=torch.as_tensor(positions, dtype=torch.long),
            cache=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache, self._real = out.cache, real
        return out.logits[:, -1]
