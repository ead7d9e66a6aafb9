"""The same work in PyTorch, as fast as we can make it on a CPU; on a CUDA device it runs unchanged.

Unlike the package it computes no metrics of an iteration, which is a little less work. Annotations tell shapes: `M`
scenarios of `L` rollouts, `N = M * L` in a row, `B` rollouts stepped together, `n` of a minibatch, `T` rounds, and `K`
arms.
"""

import concurrent.futures
import math
import queue
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from jaxtyping import Float, Int
from torch import Tensor  # pyright: ignore[reportMissingImports]

from experiments.benchmarks.contenders import pytorch_network as network
from experiments.benchmarks.contenders import require_known
from rmft_jax.config import Value
from rmft_jax.config.checks import largest_divisor
from rmft_jax.method.devices import num_cores
from rmft_jax.method.fine_tuning import GradientSteps
from rmft_jax.method.settings import RMFTConfig

# Gumbel noise of the policy, and the rewards of all arms.
Noise = tuple[Float[Tensor, "T B K"], Float[Tensor, "T B K"]]

# Of the caches of a block of rollouts, measured: they stay in the processor's cache. Fewer rollouts than this are not
# worth the calls.
_CACHE_BYTES, _MIN_ROLLOUTS = 6_600_000, 16
# Of a block of updates; its size matters little.
_UPDATE_TOKENS = 1600
_ONLY: dict[str, Value] = {
    "environment": "stationary", "prior": "uniform", "noise": "bernoulli", "selection": "regret",
    "selection_regret": "standard", "selection_form": "standard",
}  # fmt: skip


class PyTorchContender:
    """Rollouts and iterations; starts from random weights.

    On a CPU every core has a Python thread, which works through blocks of its own with single-threaded kernels. They
    let go of Python's lock, and small ones gain less from a second core than they lose by waiting for it.

    Attributes:
      params: the weights.
      actions, rewards, logits: `[T, N]`, `[T, N]` and `[T, N, K]` of the latest rollouts.
      means, branch_rounds: `[M, K]` and `[M]` of their scenarios.
      regret: `[M, L]` of the latest iteration.
    """

    def __init__(self, config: RMFTConfig, *, seed: int = 0, device: str | None = None, compiled: bool = False):
        """Allocates what lasts.

        Args:
          config: as preset `mab`, of any size.
          seed: of weights and of play.
          device: where to run. None: a CUDA device if there is one.
          compiled: on a CPU, whether rounds and gradients go through `torch.compile`, which needs a C++ compiler and
            about twenty seconds; it pays, most for rollouts of a small width. On a CUDA device, whether the rounds of
            a rollout are recorded as one CUDA graph.

        Raises:
          ConfigError: if the configuration cannot work, or is not supported.
        """
        config.validate()
        self.policy, self._steps = require_known(config, **_ONLY)
        self.config, self.regret = config, torch.zeros(0)
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._on_cpu, self._compiled = self.device.type == "cpu", compiled
        torch.backends.cuda.matmul.allow_tf32 = False
        num_workers = num_cores() if self._on_cpu else 1
        if self._on_cpu:
            torch.set_num_threads(1)
        threads = concurrent.futures.ThreadPoolExecutor(num_workers, initializer=torch.set_num_threads, initargs=(1,))
        self._map: Callable[..., Any] = threads.map if num_workers > 1 else map
        self._generator = torch.Generator(self.device).manual_seed(seed)
        self.params = network.init_params(self.policy, config.environment.num_arms, self._generator)
        self._optimizer = torch.optim.Adam(self.params.values(), lr=self._steps.step_size, fused=True)
        self._num_updates = 0
        self._allocate(seed, num_workers)
        self._play_round, self._loss, self._graphs = network.play_round, network.policy_loss, {}
        if compiled and self._on_cpu:
            # Programs of other sizes would count as recompilations. One without Python lets go of Python's lock.
            torch.compiler.reset()
            self._play_round, self._loss = (
                torch.compile(function, options={"cpp_wrapper": True})
                for function in (network.play_round, network.policy_loss)
            )
            # Here and now, rather than in every thread.
            self._play_block(self._blocks[0])
            shape = (self._update_block, config.horizon)
            self._gradient(torch.zeros(shape, dtype=torch.long), torch.zeros(shape), torch.zeros(shape))

    def _allocate(self, seed: int, num_workers: int) -> None:
        config, policy, steps, device = self.config, self.policy, self._steps, self.device
        size, num_arms = config.num_scenarios * config.num_rollouts, config.environment.num_arms
        minibatch = config.num_scenarios * config.selection.k // steps.num_minibatches
        block, update_block = size, minibatch
        if self._on_cpu:
            bytes_per_rollout = 8 * policy.num_layers * config.horizon * policy.width
            block = max(_MIN_ROLLOUTS, _CACHE_BYTES // bytes_per_rollout)
            update_block = max(1, _UPDATE_TOKENS // config.horizon)
        # Blocks of equal size: one program serves them all.
        limit = max(1, min((config.rollout_block or block) // config.num_rollouts, config.num_scenarios))
        self._block = largest_divisor(config.num_scenarios, limit)
        self._update_block = largest_divisor(minibatch, min(steps.update_block or update_block, minibatch))
        self.actions = torch.zeros(config.horizon, size, dtype=torch.long, device=device)
        self.rewards = torch.zeros(config.horizon, size, device=device)
        self.logits = torch.zeros(config.horizon, size, num_arms, device=device)
        self.means = torch.zeros(config.num_scenarios, num_arms, device=device)
        self.branch_rounds = torch.zeros(config.num_scenarios, dtype=torch.long, device=device)
        # A generator per block, so that its draws do not depend on the order of the threads.
        starts = range(0, config.num_scenarios, self._block)
        self._blocks = [(start, torch.Generator(device).manual_seed(seed * 1_000_003 + start + 1)) for start in starts]
        # Transposed keys suit the products of small matrices, but not what is compiled.
        transposed = self._on_cpu and not self._compiled
        self._caches: queue.SimpleQueue[list[network.Cache]] = queue.SimpleQueue()
        for _ in range(min(num_workers, len(self._blocks))):
            self._caches.put(
                network.empty_caches(policy, self._block * config.num_rollouts, config.horizon, transposed, device)
            )

    def load(self, params: Mapping[str, Any]) -> None:
        """Takes over the nested parameters of a `BanditTransformer`, as NumPy arrays."""
        flat = network.flatten(params)
        with torch.no_grad():
            for name, value in self.params.items():
                value.copy_(torch.tensor(flat.pop(name)))
        assert not flat, f"unknown parameters: {', '.join(flat)}"

    @torch.no_grad()
    def outputs(self, actions: np.ndarray, rewards: np.ndarray) -> Float[Tensor, "n T K"]:
        """Logits of every round of given trajectories `[n, T]`."""
        seen = network.tokens(
            torch.tensor(actions, dtype=torch.long, device=self.device),
            torch.tensor(rewards, dtype=torch.float32, device=self.device),
            self.means.shape[-1],
        )
        return network.forward(self.policy.num_heads, self.params, seen)

    def rollout(self) -> None:
        """Plays all M * L trajectories with the current weights."""
        list(self._map(self._play_block, self._blocks))
        self._wait()

    def iteration(self) -> None:
        """Plays, keeps the k rollouts of lowest regret in each scenario, and fine-tunes on them."""
        config, k = self.config, self.config.selection.k
        self.rollout()
        means_of_rollouts = self.means.repeat_interleave(config.num_rollouts, 0)
        earned = means_of_rollouts.gather(1, self.actions.T).sum(1)
        regret = config.horizon * means_of_rollouts.amax(1) - earned
        self.regret = regret.view(config.num_scenarios, config.num_rollouts)
        kept = self.regret.topk(k, largest=False).indices
        scenarios = torch.arange(config.num_scenarios, device=self.device)[:, None]
        rows = (scenarios * config.num_rollouts + kept).flatten()
        actions, rewards = self.actions[:, rows].T.contiguous(), self.rewards[:, rows].T
        rounds = torch.arange(config.horizon, device=self.device)
        weights = (rounds >= self.branch_rounds.repeat_interleave(k)[:, None]).float()
        for _ in range(self._steps.num_epochs):
            order = torch.randperm(len(rows), generator=self._generator, device=self.device)
            for chosen in order.chunk(self._steps.num_minibatches):
                self.update(actions[chosen], rewards[chosen], weights[chosen])
        self._wait()

    def update(self, actions: Int[Tensor, "n T"], rewards: Float[Tensor, "n T"], weights: Float[Tensor, "n T"]) -> None:
        """One step of Adam on a minibatch; its gradient is the sum of those of small blocks."""
        blocks = (x.split(self._update_block) for x in (actions, rewards, weights / weights.sum()))
        first, *others = self._map(self._gradient, *blocks)
        for gradient in others:
            torch._foreach_add_(first, gradient)
        for value, gradient in zip(self.params.values(), first, strict=True):
            value.grad = gradient
        torch.nn.utils.clip_grad_norm_(self.params.values(), self._steps.max_grad_norm, foreach=True)
        self._optimizer.param_groups[0]["lr"] = step_size(self._steps, self.config.num_iterations, self._num_updates)
        self._optimizer.step()
        self._num_updates += 1

    def _wait(self) -> None:
        if not self._on_cpu:
            torch.cuda.synchronize(self.device)

    @torch.inference_mode()
    def _play_block(self, block: tuple[int, torch.Generator]) -> None:
        first, generator = block
        noise = self._draw(slice(first, first + self._block), generator)
        rollouts = slice(first * self.config.num_rollouts, (first + self._block) * self.config.num_rollouts)
        caches = self._caches.get()
        if self._compiled and not self._on_cpu:
            self._replay(rollouts, caches, noise)
        else:
            self._play_rounds(rollouts, caches, noise)
        self._caches.put(caches)

    def _draw(self, scenarios: slice, generator: torch.Generator) -> Noise:
        """Draws means and branch rounds of a block, and what is random in its play."""
        config, options = self.config, {"device": self.device, "generator": generator}
        means, branch_rounds = self.means[scenarios], self.branch_rounds[scenarios]
        means.copy_(torch.rand(means.shape, **options))
        if config.branching == "uniform":
            branch_rounds.copy_(torch.randint(config.horizon, branch_rounds.shape, **options))
        shape = (config.horizon, self._block, config.num_rollouts, means.shape[1])
        shared = (torch.arange(config.horizon, device=self.device)[:, None] < branch_rounds)[..., None, None]
        gumbels = torch.empty(shape, device=self.device).exponential_(generator=generator).log_().mul_(-1)
        # In logits, temperature is a factor of their noise.
        gumbels = config.temperature * torch.where(shared, gumbels[:, :, :1], gumbels)
        uniforms = torch.rand(shape, **options)
        if config.shared_reward_noise:
            shared = torch.ones_like(shared)
        table = (torch.where(shared, uniforms[:, :, :1], uniforms) < means[:, None]).float()
        return gumbels.flatten(1, 2), table.flatten(1, 2)

    def _play_rounds(self, rollouts: slice, caches: list[network.Cache], noise: Noise) -> None:
        params = network.play_params(self.policy, self.params)
        fused = self._compiled and self._on_cpu
        x = params["first"].repeat(rollouts.stop - rollouts.start, 1)
        for t in range(self.config.horizon):
            past = [(keys[:, :, : t + 1], values[:, :, : t + 1]) for keys, values in caches]
            x, actions, rewards, logits = self._play_round(params, x, past, noise[0][t], noise[1][t], fused)
            self.actions[t, rollouts] = actions
            self.rewards[t, rollouts] = rewards
            self.logits[t, rollouts] = logits

    def _replay(self, rollouts: slice, caches: list[network.Cache], noise: Noise) -> None:
        """All rounds as one CUDA graph, recorded at first use; weights and noise stay where they are."""
        if rollouts.start not in self._graphs:
            stream = torch.cuda.Stream(self.device)
            stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(stream):  # Libraries set themselves up, which cannot be recorded.
                self._play_rounds(rollouts, caches, noise)
            torch.cuda.current_stream(self.device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._play_rounds(rollouts, caches, noise)
            self._graphs[rollouts.start] = graph, noise
        graph, recorded = self._graphs[rollouts.start]
        for old, new in zip(recorded, noise, strict=True):
            old.copy_(new)
        graph.replay()

    def _gradient(self, actions: Tensor, rewards: Tensor, weights: Tensor) -> list[Tensor]:
        seen = network.tokens(actions, rewards, self.means.shape[-1])
        loss = self._loss(
            self.policy.num_heads, self.params, seen, actions, weights, self.config.objective.entropy_weight
        )
        return list(torch.autograd.grad(loss, list(self.params.values())))


def step_size(steps: GradientSteps, num_iterations: int, update: int) -> float:
    """Of the update of this number, from 0. The package's own schedule would call JAX in every update."""
    if steps.schedule == "constant":
        return steps.step_size
    total = num_iterations * steps.num_epochs * steps.num_minibatches
    return steps.step_size * 0.5 * (1 + math.cos(math.pi * min(update, total) / total))
