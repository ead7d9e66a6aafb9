"""What training has shown so far, of one run or of several in step; all of it in NumPy."""

import dataclasses
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from rmft_jax.config import Params
from rmft_jax.method.rmft import IterationMetrics

METRICS = tuple(field.name for field in dataclasses.fields(IterationMetrics))


def least(values: Float[np.ndarray, "n"]) -> int:
    """The place of the first lowest number; what is no number is never the lowest."""
    return int(np.argmin(_last_if_nan(values)))


def _last_if_nan(values: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    return np.where(np.isnan(values), np.inf, values)


@dataclasses.dataclass
class History:
    """How far training is: `[B]` runs, `[n]` iterations, `[v]` validations so far.

    metrics: `[B, n]` by name.
    iterations: `[v]` when validations were made, from 0.
    validation: `[B, v]` mean regrets; validation_sem: `[B, v]` their standard errors over scenarios.
    best: the parameters of lowest validation regret, stacked; None before the first validation.
    best_iteration: `[B]` when they were reached.
    failures: by run, why its training ended.
    seconds: spent, without compilation; compile_seconds: spent on that.
    """

    metrics: dict[str, Float[np.ndarray, "B n"]]
    iterations: Int[np.ndarray, "v"]
    validation: Float[np.ndarray, "B v"]
    validation_sem: Float[np.ndarray, "B v"]
    best: Params | None
    best_iteration: Int[np.ndarray, "B"]
    failures: dict[int, str]
    seconds: float = 0.0
    compile_seconds: float = 0.0

    @classmethod
    def fresh(cls, width: int) -> "History":
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
        alive = [run for run in range(len(self.validation)) if run not in self.failures]
        return float(self.validation[alive, -1].mean()) if alive else float("nan")

    def add_chunk(self, metrics: IterationMetrics, finite: Bool[np.ndarray, "B"]) -> None:
        """Adds the metrics of a chunk; whoever lost the finite numbers has failed."""
        new = {name: np.asarray(getattr(metrics, name)) for name in METRICS}
        bad = ~(np.isfinite(new["loss"]) & np.isfinite(new["grad_norm"]))
        for run in np.flatnonzero(bad.any(axis=1) | ~finite).tolist():
            last = int(bad[run].argmax()) if bad[run].any() else bad.shape[1] - 1
            where = f"{'at' if bad[run].any() else 'by'} iteration {self.done + last + 1}"
            advice = "try a smaller step_size, max_grad_norm or exploration_std"
            self.failures.setdefault(run, f"loss or parameters became NaN or infinite {where}; {advice}")
        self.metrics = {name: np.concatenate([self.metrics[name], new[name]], axis=1) for name in METRICS}

    def add_validation(self, iteration: int, regret: Float[np.ndarray, "B N"], params: Params) -> None:
        """Adds the regrets of the validation scenarios, and keeps the parameters where they are the best so far."""
        mean = regret.mean(axis=1, dtype=np.float64)
        sem = regret.std(axis=1, ddof=1, dtype=np.float64) / regret.shape[1] ** 0.5
        lowest = _last_if_nan(self.validation).min(axis=1) if self.validated else np.full(len(mean), np.inf)
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

    def best_of(self, run: int = 0) -> Params:
        """The parameters of lowest validation regret of one run."""
        return jax.tree.map(lambda leaf: leaf[run], self.best)

    def row(self, number: int = -1, run: int = 0) -> dict[str, float | int]:
        """What a chunk and its validation showed, in seven digits: of the first validation, before training, it alone.

        `iteration`, done at its end; the means of its metrics over its iterations; `validation_regret`, its standard
        error over scenarios `validation_regret_sem`, and `best_iteration`, the one of the lowest so far.
        """
        number = range(len(self.iterations))[number]
        start, end = self.iterations[max(number - 1, 0)], self.iterations[number]
        means = {name: values[run, start:end].mean() for name, values in self.metrics.items() if end > start}
        validation = {
            "validation_regret": self.validation[run, number],
            "validation_regret_sem": self.validation_sem[run, number],
        }
        best = self.iterations[least(self.validation[run, : number + 1])]
        rounded = {name: float(f"{value:.7g}") for name, value in (means | validation).items()}
        return {"iteration": int(end)} | rounded | {"best_iteration": int(best)}

    def dataset(self, run: int = 0) -> xr.Dataset:
        """The training curves of one run: the metrics over `iteration`, the validations over `validation_iteration`."""
        per_validation = ("validation_iteration",)
        metrics: dict[str, Any] = {name: (("iteration",), values[run]) for name, values in self.metrics.items()}
        validation = {
            "validation_regret": (per_validation, self.validation[run]),
            "validation_regret_sem": (per_validation, self.validation_sem[run]),
        }
        coords = {"iteration": np.arange(1, self.done + 1), "validation_iteration": self.iterations}
        return xr.Dataset(metrics | validation, coords)
