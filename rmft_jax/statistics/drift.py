"""What chance alone does to a policy that is fitted to N of its own decisions: it drifts, and loses its entropy.

Where regret tells nothing of a decision, the kept ones are N draws from the policy itself. Fitting it to them is the
Wright-Fisher model of population genetics (Ewens 2004, chapter 3): the policy stays put on average, and its diversity
shrinks by a factor that depends on nothing but N and the step. Measured entropy that falls no faster than this says
nothing of learning. Proofs: theory/selection.md, C3.
"""

import numpy as np
from jaxtyping import Float

from rmft_jax.config.checks import require, require_count, require_number


def entropy_loss(num_arms: int, num_kept: int, step: float = 1.0) -> float:
    """Mean entropy in nats that one decision loses in one iteration without a signal, to first order in `1 / num_kept`.

    `step^2 (K - 1) / (2 N)`, whatever the policy is, as long as each arm is played often among the N kept decisions.
    Several decisions that are each kept N times lose the sum. Source: theory/selection.md, C3.

    Args:
      num_arms: K, of positive probability.
      num_kept: N, independent kept decisions of this kind in one iteration.
      step: which part of the way to their shares the policy goes; 1 where the fit is exact.

    Raises:
      ConfigError: if an argument cannot be.
    """
    require_count(num_arms, "num_arms", 1, 2)
    _require_drift(num_kept, step)
    return step**2 * (num_arms - 1) / (2 * num_kept)


def heterozygosity(p0: Float[np.ndarray, "K"], num_kept: int, num_iterations: int, step: float = 1.0) -> float:
    """Mean of `1 - sum_a p(a)^2`, the chance that two draws differ, after some iterations without a signal; exact.

    `(1 - sum_a p0(a)^2) (1 - step^2 / N)^n`. Source: theory/selection.md, C3.

    Args:
      p0: `[K]` probabilities of the arms at the start.
      num_kept: N, independent kept decisions in every iteration.
      num_iterations: n.
      step: which part of the way to their shares the policy goes; 1 where the fit is exact.

    Raises:
      ConfigError: if an argument cannot be.
    """
    start = np.asarray(p0, np.float64)
    ok = start.ndim == 1 and bool(np.all(start >= 0)) and abs(float(np.sum(start)) - 1) < 1e-4
    require(ok, f"p0={start.tolist()}", "probabilities of the arms, which sum to 1", "p0=np.array([0.5, 0.5])")
    require_count(num_iterations, "num_iterations", 0, 100)
    _require_drift(num_kept, step)
    return float(1 - np.sum(start**2)) * (1 - step**2 / num_kept) ** num_iterations


def explaining_step(entropy: Float[np.ndarray, "n"], num_arms: int, num_kept: int) -> float:
    """The fit step at which chance alone would have lost the entropy that a run lost; 0 where it lost none.

    A diagnostic of a run without a reference: `sqrt(2 N l / (K - 1))`, l the mean loss of an iteration. Where it is far
    above what the update can move (1 for an exact fit, less for a few small gradient steps), selection has done the
    work; where it is near, the fall of entropy says nothing. Of a network it is no more than a scale: C3 is proved of a
    table.

    Args:
      entropy: `[n]` mean entropy of the rollouts' decisions in nats by iteration, such as a run's metrics hold.
      num_arms: K.
      num_kept: N, kept trajectories of an iteration, M k.

    Raises:
      ConfigError: if an argument cannot be.
    """
    values = np.asarray(entropy, np.float64)
    ok = values.ndim == 1 and values.size >= 2 and bool(np.all(np.isfinite(values)))
    require(ok, f"entropy of shape {values.shape}", "a finite number for each of at least two iterations", "its array")
    require_count(num_arms, "num_arms", 2, 2)
    _require_drift(num_kept, 1.0)
    lost = max(0.0, float(values[0] - values[-1]) / (values.size - 1))
    return float(np.sqrt(lost / entropy_loss(num_arms, num_kept)))


def _require_drift(num_kept: int, step: float) -> None:
    require_count(num_kept, "num_kept", 1, 512)
    require_number(step, "step", "above 0 and at most 1", 0 < step <= 1, 1.0)
