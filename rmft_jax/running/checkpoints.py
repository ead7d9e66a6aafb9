"""Checkpoints: all that training needs to go on, and the best parameters so far, in one file each."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rmft_jax.config.checks import either
from rmft_jax.method.state import TrainState
from rmft_jax.running.files import RunError, UnreadableError
from rmft_jax.running.history import METRICS, History
from rmft_jax.running.provenance import versions
from rmft_jax.running.weights import DamagedFileError, fitted, named, read_arrays, write_arrays

_ARRAYS = ("iterations", "validation", "validation_sem", "best_iteration")


class Checkpoints:
    """The last two checkpoints of some training, `00000020.npz` after 20 iterations.

    Args:
      folder: where they are, or will be.
      identity: whose they are, fit for JSON: the configuration, or those of several runs in step.
      warn: called with one line for every damaged checkpoint that is passed over.
    """

    def __init__(self, folder: Path, identity: Any, warn: Callable[[str], None] = print):
        self._folder, self._identity, self._warn = folder, identity, warn

    def save(self, state: TrainState, history: History) -> None:
        """Writes a checkpoint under its iteration, and drops all but the last two.

        Raises:
          OSError: if it cannot be written; those before it stay.
        """
        arrays = named(stored(state), "state.") | named(history.best, "best.")
        arrays |= {f"metrics.{name}": values for name, values in history.metrics.items()}
        arrays |= {name: getattr(history, name) for name in _ARRAYS}
        about = {
            "identity": self._identity,
            "versions": versions(),
            "failures": list(history.failures.items()),
            "seconds": history.seconds,
            "compile_seconds": history.compile_seconds,
        }
        write_arrays(self._folder / f"{history.done:08d}.npz", arrays, about)
        for path in self._paths()[2:]:
            path.unlink(missing_ok=True)

    def restore(self, like: TrainState) -> tuple[TrainState, History] | None:
        """The newest whole checkpoint, from which training goes on; None if there is none of this training.

        Args:
          like: a state of the same structure, with the configuration; an abstract one will do.

        Raises:
          RunError: if there are checkpoints and all are damaged, or they are another training's.
        """
        paths = self._paths()
        if (self._folder / "last").is_dir():
            raise RunError(
                f"{self._folder} holds checkpoints of version 0.6 or before, which this one cannot read; "
                "try rmft-jax==0.6.0 for this run, or train it again in another directory"
            )
        for position, path in enumerate(paths):
            try:
                arrays, about = read_arrays(path)
                if about["identity"] != self._identity:
                    raise RunError(f"{path} belongs to another run; try another directory for this one")
                restored = _restored(arrays, about, like)
                self._note_other_versions(about.get("versions", {}))
                return restored
            except (DamagedFileError, LookupError, TypeError) as error:
                remedy = f"falling back to {paths[position + 1].name}" if position + 1 < len(paths) else "none is left"
                self._warn(f"checkpoint {path.name} is damaged ({error}); {remedy}")
        if paths:
            names = ", ".join(path.name for path in paths)
            raise RunError(
                f"got only damaged checkpoints in {self._folder} ({names}), need a whole one; "
                f"try a backup of them, or train again with {either('--overwrite', 'overwrite=True')}"
            )
        return None

    def _note_other_versions(self, before: Mapping[str, str]) -> None:
        now = versions()
        changes = [f"{name} {before[name]} then, {now[name]} now" for name in before if now.get(name) != before[name]]
        if changes:
            self._warn(f"{self._folder} is of other versions ({', '.join(changes)}): the same but for rounding")

    def _paths(self) -> list[Path]:
        """Newest first."""
        # Not by `glob`, which sees nothing where it may not look.
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise UnreadableError.of(self._folder, error) from error
        found = [name for name in names if name[0].isdecimal() and name.endswith(".npz")]
        return [self._folder / name for name in sorted(found, reverse=True)]


def stored(state: TrainState) -> TrainState:
    """The state as it is stored: with the bits of its key, without the configuration and what is not trained."""
    nothing: Any = None
    return dataclasses.replace(state, key=jax.random.key_data(state.key), config=nothing, fixed=None)


def revived(plain: TrainState, like: TrainState) -> TrainState:
    """The inverse of `stored`, with the configuration and what is fixed in another state, maybe an abstract one."""
    plain, fixed = jax.tree.map(jnp.asarray, (plain, like.fixed))
    return dataclasses.replace(plain, key=jax.random.wrap_key_data(plain.key), config=like.config, fixed=fixed)


def _restored(arrays: dict[str, np.ndarray], about: Any, like: TrainState) -> tuple[TrainState, History]:
    plain = fitted(arrays, jax.eval_shape(stored, like), "state.")
    history = History(
        # Of a run that began before there was a metric, it is not known.
        metrics={
            name: arrays.get(f"metrics.{name}", np.full_like(arrays["metrics.regret"], np.nan)) for name in METRICS
        },
        best=fitted(arrays, _per_run(like), "best."),
        failures=dict(about["failures"]),
        iterations=arrays["iterations"],
        validation=arrays["validation"],
        validation_sem=arrays["validation_sem"],
        best_iteration=arrays["best_iteration"],
        seconds=float(about["seconds"]),
        compile_seconds=float(about["compile_seconds"]),
    )
    return revived(plain, like), history


def _per_run(like: TrainState) -> Any:
    """The shapes of the best parameters, whose leading axis counts runs, of which a single run's state has none."""
    if like.iteration.ndim:
        return like.params
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), like.params)
