"""How the policy is fine-tuned on the kept trajectories: by steps of Adam, or by the exact least-squares fit."""

import abc
import functools
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from rmft_jax.agents import SingleLayer, SingleLayerAgent, TrainedAgent
from rmft_jax.agents.base import state_bytes
from rmft_jax.config import Choice, Params, ScalarKey, pytree
from rmft_jax.config.checks import block_of, largest_divisor, require, require_count, require_number
from rmft_jax.config.platforms import platform
from rmft_jax.method.devices import Shares, on_mesh
from rmft_jax.method.judging import KeptBatch

if TYPE_CHECKING:
    from rmft_jax.method.settings import RMFTConfig
    from rmft_jax.method.state import TrainState

# Of keys and values that a block of an update has, about: its activations are a multiple of them, and stay in the
# cache of a core.
_CACHE_BYTES = 500_000


@pytree
class Fit:
    """How an iteration's fine-tuning went.

    loss: `[]` mean objective over its optimizer updates; before the fit, where that is exact.
    grad_norm: `[]` mean global gradient norm over the updates, before clipping; before the fit, where that is exact.
    """

    loss: Float[Array, ""]
    grad_norm: Float[Array, ""]


class Update(Choice, kind="update"):
    """A way to fine-tune."""

    @abc.abstractmethod
    def validate(self, config: "RMFTConfig") -> None:
        """Raises `ConfigError` for the first setting that cannot work."""

    def init(self, params: Params, num_iterations: int) -> Any:
        """The state of the optimizer before the first of that many iterations; by default there is none."""
        del params, num_iterations

    @abc.abstractmethod
    def fine_tune(
        self, state: "TrainState", data: KeptBatch, key: ScalarKey, mesh: Mesh | None = None
    ) -> tuple["TrainState", Fit]:
        """The state after an iteration that ends with learning from these trajectories."""


@Update.register("gradient")
class GradientSteps(Update):
    """Steps of Adam down the objective."""

    num_epochs: int = 1
    """Passes over the kept trajectories in every iteration."""
    num_minibatches: int = 4
    """Optimizer updates per pass; must divide M * k."""
    step_size: float = 2e-3
    """Adam's step size at the start."""
    schedule: Literal["constant", "cosine"] = "cosine"
    """Step size over the run: constant, or cosine decay to zero."""
    max_grad_norm: float = 1.0
    """Gradients are scaled down to this global norm."""
    update_block: int = 0
    """Trajectories per gradient accumulation step; bounds memory. 0 chooses: up to 64 on CPU, that they stay in cache,
    else a whole minibatch."""

    def validate(self, config: "RMFTConfig") -> None:
        self.require_types()
        for name, suggestion in (("num_epochs", 1), ("num_minibatches", 4)):
            require_count(getattr(self, name), name, 1, suggestion)
        require_count(self.update_block, "update_block", 0, 0)
        kept = config.num_scenarios * config.selection.k
        require(
            kept % self.num_minibatches == 0,
            f"num_minibatches={self.num_minibatches} with num_scenarios*k="
            f"{config.num_scenarios}*{config.selection.k}={kept}",
            "a number of minibatches that divides the kept trajectories",
            f"num_minibatches={largest_divisor(kept, self.num_minibatches)}",
        )
        require_number(self.step_size, "step_size", "above 0", self.step_size > 0, 2e-3)
        require_number(self.max_grad_norm, "max_grad_norm", "above 0", self.max_grad_norm > 0, 1.0)

    def init(self, params: Params, num_iterations: int) -> Any:
        """That of Adam."""
        return self.optimizer(num_iterations).init(params)

    def optimizer(self, num_iterations: int) -> optax.GradientTransformation:
        """Adam after clipping, with the schedule over a run of so many iterations."""
        step_size = self.step_size
        if self.schedule == "cosine":
            num_updates = num_iterations * self.num_epochs * self.num_minibatches
            step_size = optax.cosine_decay_schedule(step_size, num_updates)
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), optax.adam(step_size))

    def fine_tune(
        self, state: "TrainState", data: KeptBatch, key: ScalarKey, mesh: Mesh | None = None
    ) -> tuple["TrainState", Fit]:
        """All optimizer updates of one iteration.

        Every device of a mesh has all of the data, computes the gradient of its share of each minibatch, and makes the
        same updates.
        """
        params, opt_state, fit = on_mesh(mesh, self._steps, state, data, key)
        return state.advanced(params, opt_state), fit

    def _steps(self, shares: Shares, state: "TrainState", data: KeptBatch, key: ScalarKey) -> tuple[Params, Any, Fit]:
        optimizer, size = self.optimizer(state.config.num_iterations), data.weights.shape[0]
        orders = jax.vmap(lambda k: jax.random.permutation(k, size))(jax.random.split(key, self.num_epochs))
        minibatches = orders.reshape(self.num_epochs * self.num_minibatches, -1)

        def update(carry: tuple[Params, Any], rows: Int[Array, "B"]) -> tuple[tuple[Params, Any], tuple[Any, Any]]:
            params, opt_state = carry
            loss, grads = self._loss_and_grads(shares, state, params, jax.tree.map(lambda x: x[rows], data))
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), (loss, optax.tree.norm(grads))

        (params, opt_state), (losses, norms) = jax.lax.scan(update, (state.params, state.opt_state), minibatches)
        return params, opt_state, Fit(jnp.mean(losses), jnp.mean(norms))

    def _loss_and_grads(
        self, shares: Shares, state: "TrainState", params: Params, batch: KeptBatch
    ) -> tuple[Float[Array, ""], Params]:
        """Mean loss over the imitated rounds of a minibatch, its gradient accumulated over devices and small blocks.

        Small blocks stay in the CPU's cache; the sum does not depend on the block size beyond rounding.
        """
        config, agent = state.config, state.config.agent(state.params, state.fixed)
        initial = state.memory.initial
        reference = None if initial is None else config.agent(initial, state.fixed)
        size = batch.weights.shape[0]
        share = -(-size // shares.number)
        block_size = block_of(share, self.update_block or _block(config, agent) or share)
        # A minibatch may have nothing to imitate: of short trajectories in padded rounds, only the shared past.
        portions = batch.weights / jnp.maximum(jnp.sum(batch.weights), 1.0)
        # The last block, and the last share, are filled up with rows that weigh nothing.
        if padding := shares.number * block_size * -(-share // block_size) - size:
            rows = jnp.concatenate([jnp.arange(size), jnp.zeros(padding, jnp.int32)])
            batch, portions = jax.tree.map(lambda x: x[rows], (batch, portions))
            portions = portions.at[size:].set(0.0)
        own = shares.own((portions, batch))
        blocks = jax.tree.map(lambda x: x.reshape(-1, block_size, *x.shape[1:]), own)

        def loss(params: Params, portions: Float[Array, "B T"], block: KeptBatch) -> Float[Array, ""]:
            learner = config.agent(params, state.fixed)
            losses = jax.vmap(functools.partial(config.objective.round_losses, config, learner, reference=reference))
            return jnp.sum(portions * losses(block))

        def add(total: Any, block: tuple[Float[Array, "B T"], KeptBatch]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, jax.value_and_grad(loss)(params, *block)), None

        zero = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, params))
        return shares.sum(jax.lax.scan(add, zero, blocks)[0])


@Update.register("least_squares")
class LeastSquares(Update):
    """The value matrix V of the single layer that fits the kept decisions best, all else fixed.

    V minimizes the mean over the kept trajectories of `sum_t |y_t - z_t(V)|^2`, plus `l2_penalty |V|^2`, where `y_t`
    are the perturbed scores of the rollouts, and `z_t(V)` is linear in V with slope F_t, the attention-weighted sums of
    what was seen. Where the penalty is 0, V stays as it is along directions in which nothing was seen, or less than the
    1e-5th part of what was seen in others. It needs none of the settings of steps.
    """

    l2_penalty: float = 0.0
    """Weight lambda of |V|^2 in the least-squares fit, beside the squared error of a trajectory, summed over rounds."""

    def validate(self, config: "RMFTConfig") -> None:
        self.require_types()
        require_number(self.l2_penalty, "l2_penalty", "of at least 0", self.l2_penalty >= 0, 0.0)
        require(
            isinstance(config.policy, SingleLayer),
            f"update='least_squares' with policy={config.policy.name!r}",
            "a single layer, whose scores are linear in V",
            "preset single-layer, or update='gradient'",
        )
        got = f"update='least_squares' with objective={config.objective.name!r}"
        require(config.objective.name == "imitation", got, "the imitation of what was just kept", "update='gradient'")

    def fine_tune(
        self, state: "TrainState", data: KeptBatch, key: ScalarKey, mesh: Mesh | None = None
    ) -> tuple["TrainState", Fit]:
        """The fit; its loss and gradient norm are those of the squared error before it."""
        del key, mesh
        agent = state.config.agent(state.params)
        assert isinstance(agent, SingleLayerAgent)
        rows, size = data.trajectory, agent.num_arms
        assert rows.scores is not None
        features = jax.vmap(agent.features)(rows)
        residuals = jnp.where(rows.arm_mask[:, None, :], rows.scores - jax.vmap(agent.outputs)(rows), 0.0)
        weights = data.weights[..., None] / data.weights.shape[0]
        # The change of V is fitted, to residuals, so that it does not drown in the rounding of V; by a QR
        # decomposition, because the normal equations would square the ratio of strong to weak directions. The penalty
        # is K more rows.
        root, penalty = jnp.sqrt(weights), jnp.sqrt(self.l2_penalty)
        design = jnp.concatenate([(root * features).reshape(-1, size), penalty * jnp.eye(size)])
        target = jnp.concatenate([(root * residuals).reshape(-1, size), -penalty * agent.value.T])
        orthogonal, triangular = jnp.linalg.qr(design)
        with jax.default_matmul_precision("highest"):
            change = (jnp.linalg.pinv(triangular, rtol=1e-5) @ (orthogonal.T @ target)).T
        per_round = jnp.sum(weights)
        loss = jnp.sum(weights * jnp.square(residuals)) / per_round / 2
        gradient = jnp.einsum("nti,ntj->ij", weights * residuals, features, precision="highest") / per_round
        params = agent.with_value(agent.value + change).params
        return state.advanced(params, state.opt_state), Fit(loss, jnp.linalg.norm(gradient))


def _block(config: "RMFTConfig", agent: TrainedAgent) -> int:
    """Trajectories whose activations fit into a core's own cache; 0, for all, where there is none."""
    if platform() != "cpu":
        return 0
    size = state_bytes(agent, config.environment.num_arms, config.horizon)
    return min(max(_CACHE_BYTES // max(size, 1), 2), 64)
