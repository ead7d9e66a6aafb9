"""The settings of a policy that reads and writes text."""

from typing import Any, Literal

from rmft_jax.agents import Policy
from rmft_jax.config.checks import require, require_count, require_number
from rmft_jax.language.lora import with_adapters
from rmft_jax.language.words import Contexts


class TextSettings(Policy):
    """What a language model is, and how it is told of a problem and answers."""

    model: str = "toy"
    """The language model: `toy`, `smollm2`, a GGUF file, or a directory with config.json, tokenizer.json and
    safetensors of the Llama family."""
    weights_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of weights that are not trained, of activations and of caches; `bfloat16` is for accelerators."""
    answer: Literal["choice", "free"] = "choice"
    """How it decides: by its probabilities of the arms' names (`choice`), which must differ in their first token; or by
    text of its own (`free`), in which the last arm named counts, and if none is, an arm drawn uniformly."""
    answer_tokens: int = 6
    """Tokens of a free answer, at most."""
    reasoning: int = 0
    """Tokens of a thought before the answer, at most; the model writes it itself. 0: it answers at once."""
    history: Literal["full", "summary"] = "full"
    """What it is told of the past: every round, or how often each arm was played, and its mean reward."""
    imitated: Literal["own", "all"] = "own"
    """Which tokens of a kept dialogue are learned: those that it wrote, or all, also those that it was told; the first
    token of a chosen arm then counts twice, among the arms and among all tokens."""
    contexts: Contexts = "trained"
    """Which stories, wordings, arms' names and units problems are told in: those for training, or those held out."""
    num_tellings: int = 64
    """Different ways in which problems are told; each scenario has one of them."""
    narration: Literal["none", "template"] = "none"
    """What another agent, whose play is imitated, is said to think: nothing, or a template that was written by hand."""
    tuned: Literal["lora", "all"] = "lora"
    """What is trained: low-rank adapters of all linear maps of the blocks, or all weights."""
    lora_rank: int = 8
    """Rank of the adapters."""
    lora_alpha: float = 16.0
    """Adapters are multiplied by `lora_alpha / lora_rank`."""

    def validate(self) -> None:
        super().validate()
        require_count(self.answer_tokens, "answer_tokens", 1, 6)
        require_count(self.reasoning, "reasoning", 0, 12)
        require(self.reasoning <= 512, f"reasoning={self.reasoning}", "at most 512 tokens of a thought", "reasoning=64")
        require_count(self.num_tellings, "num_tellings", 1, 64)
        require_count(self.lora_rank, "lora_rank", 1, 8)
        require_number(self.lora_alpha, "lora_alpha", "above 0", self.lora_alpha > 0, 16.0)
        got = f"narration={self.narration!r} with reasoning={self.reasoning}"
        require(self.narration == "none" or self.reasoning > 0, got, "room for the thought", "reasoning=24")
        got = f"weights_dtype='bfloat16' with tuned={self.tuned!r}"
        need = "weights that are not trained, which stay in float32"
        require(self.weights_dtype == "float32" or self.tuned == "lora", got, need, "tuned='lora'")

    @property
    def only_own_words(self) -> bool:
        """Unless it learns all tokens."""
        return self.imitated == "own"

    def weights(self, params: Any, model: Any) -> Any:
        """The weights of the decoder: those that are trained, or those that are not, with the adapters that are."""
        return params if self.tuned == "all" else with_adapters(model, params, self.lora_alpha / self.lora_rank)

    @property
    def answers_in_text(self) -> bool:
        """With free answers."""
        return self.answer == "free"

    @property
    def num_free(self) -> int:
        """Tokens of the answer that it writes itself."""
        return self.answer_tokens if self.answer == "free" else 0

    def has_scores(self, feedback: object) -> bool:
        """It decides by logits of arms under full information too."""
        del feedback
        return False

    @property
    def any_num_arms(self) -> bool:
        """As many as there are names."""
        return True
