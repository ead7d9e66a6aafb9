"""How far a batch of cells is, and the file that keeps it, so that a crash loses less than a minute of training."""

import dataclasses
import json
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from rmft_jax.engine.programs import Batch
from rmft_jax.storage import replacing
from rmft_jax.training import METRICS
from rmft_jax.types import IterationMetrics, Params


@dataclasses.dataclass
class Progress:
    """How far a batch is, all of it in NumPy: `[B]` slots, `[n]` iterations, `[v]` validations so far.

    metrics: `[B, n]` by name.
    iterations: `[v]` when validations were made, from 0.
    validation: `[B, v]` mean regrets; validation_sem: `[B, v]` their standard errors over scenarios.
    best: the parameters of lowest validation regret, stacked; None before the first validation.
    best_iteration: `[B]` when they were reached.
    failures: by slot, why its training ended.
    seconds: spent, without compilation.
    """

    metrics: dict[str, Float[np.ndarray, "B n"]]
    iterations: Int[np.ndarray, "v"]
    validation: Float[np.ndarray, "B v"]
    validation_sem: Float[np.ndarray, "B v"]
    best: Params | None
    best_iteration: Int[np.ndarray, "B"]
    failures: dict[int, str]
    seconds: float = 0.0

    @classmethod
    def fresh(cls, width: int) -> "Progress":
        """Nothing done."""
        return cls(
            metrics={name: np.zeros((width, 0), np.float32) for name in METRICS},
            iterations=np.zeros(0, np.int64),
            validation=np.zeros((width, 0)),
            validation_sem=np.zeros((width, 0)),
            best=None,
            best_iteration=np.zeros(width, np.int64),
            failures={},
        )

    @property
    def validated(self) -> bool:
        """Whether anything has happened yet."""
        return len(self.iterations) > 0

    @property
    def done(self) -> int:
        """Iterations done."""
        return int(self.iterations[-1]) if self.validated else 0

    @property
    def live_regret(self) -> float:
        """Mean validation regret of what has not failed."""
        alive = [slot for slot in range(len(self.validation)) if slot not in self.failures]
        return float(self.validation[alive, -1].mean()) if alive else float("nan")

    def add_chunk(self, metrics: IterationMetrics, finite: Bool[np.ndarray, "B"]) -> None:
        """Adds the metrics of a chunk; whoever lost the finite numbers has failed."""
        new = {name: np.asarray(getattr(metrics, name)) for name in METRICS}
        bad = ~(np.isfinite(new["loss"]) & np.isfinite(new["grad_norm"]))
        for slot in np.flatnonzero(bad.any(axis=1) | ~finite).tolist():
            last = int(bad[slot].argmax()) if bad[slot].any() else bad.shape[1] - 1
            where = f"{'at' if bad[slot].any() else 'by'} iteration {self.done + last + 1}"
            advice = "try a smaller step_size, max_grad_norm or exploration_std"
            self.failures.setdefault(slot, f"loss or parameters became NaN or infinite {where}; {advice}")
        self.metrics = {name: np.concatenate([self.metrics[name], new[name]], axis=1) for name in METRICS}

    def add_validation(self, iteration: int, regret: Float[np.ndarray, "B N"], params: Params) -> None:
        """Adds the regrets of the validation scenarios, and keeps the parameters where they are the best so far."""
        mean = regret.mean(axis=1, dtype=np.float64)
        sem = regret.std(axis=1, ddof=1, dtype=np.float64) / regret.shape[1] ** 0.5
        lowest = self.validation.min(axis=1) if self.validated else np.full(len(mean), np.inf)
        better = mean < lowest
        # Copies: what is donated to the next chunk may share its memory with a view.
        best = params if self.best is None else self.best
        self.best = jax.tree.map(
            lambda old, new: np.where(better.reshape(-1, *[1] * (np.ndim(new) - 1)), new, old), best, params
        )
        self.best_iteration = np.where(better, iteration, self.best_iteration)
        self.iterations = np.append(self.iterations, iteration)
        self.validation = np.concatenate([self.validation, mean[:, None]], axis=1)
        self.validation_sem = np.concatenate([self.validation_sem, sem[:, None]], axis=1)


def save(path: Path, identity: str, batch: Batch, progress: Progress) -> None:
    """Writes the state of a batch, whole or not at all; `identity` says whose it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Any] = {
        f"state_{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(_changing(batch)))
    }
    arrays |= {f"best_{i}": leaf for i, leaf in enumerate(jax.tree.leaves(progress.best))}
    arrays |= {f"metric_{name}": values for name, values in progress.metrics.items()}
    arrays |= {name: getattr(progress, name) for name in _PLAIN}
    arrays["notes"] = np.asarray(json.dumps({"identity": identity, "failures": list(progress.failures.items())}))
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def load(path: Path, identity: str, batch: Batch) -> tuple[Batch, Progress] | None:
    """What `save` wrote for this very batch, given the batch at its start; None if there is no such thing."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            notes = json.loads(str(arrays["notes"]))
            if notes["identity"] != identity:
                return None
            leaves, structure = jax.tree.flatten(_changing(batch))
            state = jax.tree.unflatten(structure, [arrays[f"state_{i}"] for i in range(len(leaves))])
            leaves, structure = jax.tree.flatten(batch.state.params)
            progress = Progress(
                metrics={name: arrays[f"metric_{name}"] for name in METRICS},
                best=jax.tree.unflatten(structure, [arrays[f"best_{i}"] for i in range(len(leaves))]),
                failures=dict(notes["failures"]),
                **{name: arrays[name] for name in _PLAIN},
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, NotImplementedError, zipfile.BadZipFile):
        return None
    progress.seconds = float(progress.seconds)
    return dataclasses.replace(batch, state=dataclasses.replace(batch.state, **state)), progress


_PLAIN = ("iterations", "validation", "validation_sem", "best_iteration", "seconds")


def _changing(batch: Batch) -> Any:
    """All that training changes; the rest follows from the configurations."""
    return {name: getattr(batch.state, name) for name in ("params", "opt_state", "iteration", "memory")}
