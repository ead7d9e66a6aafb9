"""Checkpoints, written by Orbax: whole or not at all."""

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from rmft_jax.storage import RunError
from rmft_jax.types import TrainState

_STATE = "state"  # Name of the arrays inside a checkpoint.


@dataclasses.dataclass(frozen=True)
class Progress:
    """What a checkpoint tells beside the state.

    validation_regret: mean regret of this state on the validation scenarios.
    best_validation_regret: the lowest one so far, this state's included.
    wall_seconds: time spent on the run so far, over all its sessions.
    compile_seconds: the part of it that went into compilation.
    """

    validation_regret: float
    best_validation_regret: float
    wall_seconds: float
    compile_seconds: float


class Checkpoints:
    """The checkpoints of a run: the last two in `last/`, and the one of lowest validation regret in `best/`.

    States are stored as arrays named by their place in the pytree; their format has checksums, so a flipped bit is
    found as well as a missing file. The configuration is not among them: it comes from the run. Restoring needs a state
    of the same structure, with the configuration; the abstract one of `rmft.abstract_state` will do.

    Args:
      directory: where they are, or will be.
      warn: called with one line for every damaged checkpoint that is passed over.
      read_only: never write or delete anything, so that a run can be read while another process trains it.
    """

    def __init__(self, directory: Path, warn: Callable[[str], None] = print, read_only: bool = False):
        self._directory = directory
        self._warn = warn
        self._last = _manager(directory / "last", keep=2, read_only=read_only)
        self._best = _manager(directory / "best", keep=1, read_only=read_only)

    def save(self, state: TrainState, progress: Progress) -> None:
        """Writes a checkpoint under its iteration, as the best one too if it is, and drops older ones.

        Raises:
          OSError: if it cannot be written; the checkpoints before it stay.
        """
        try:
            with _quiet_orbax():
                if progress.validation_regret <= progress.best_validation_regret:
                    _save(self._best, state, progress)
                _save(self._last, state, progress)
        except ValueError as error:  # TensorStore's word for a full disk, among others.
            raise OSError(
                f"cannot write checkpoint {state.iteration} in {self._directory} ({_reason(error)})"
            ) from error

    def resume(self, like: TrainState) -> tuple[TrainState, Progress] | None:
        """The newest whole checkpoint, from which training goes on. None if nothing was saved yet.

        Checkpoints beyond it are dropped: they are damaged, or the run will reach them again.

        Raises:
          RunError: if there are checkpoints and all are damaged.
        """
        restored = self.restore_last(like)
        reached = -1 if restored is None else int(restored[0].iteration)
        for manager in (self._last, self._best):
            for step in manager.all_steps():
                if step > reached:
                    manager.delete(step)
        return restored

    def restore_last(self, like: TrainState) -> tuple[TrainState, Progress] | None:
        """The newest whole checkpoint. None if nothing was saved yet; `RunError` if all are damaged."""
        return self._first_whole([self._last], like)

    def restore_best(self, like: TrainState) -> tuple[TrainState, Progress] | None:
        """The checkpoint of lowest validation regret; the last one, with a warning, if that is damaged."""
        return self._first_whole([self._best, self._last], like)

    def close(self) -> None:
        """Releases the threads of Orbax."""
        self._last.close()
        self._best.close()

    def _first_whole(
        self, managers: list[ocp.CheckpointManager], like: TrainState
    ) -> tuple[TrainState, Progress] | None:
        candidates = [(m, step) for m in managers for step in sorted(m.all_steps(), reverse=True)]
        names = [
            str((manager.directory / str(step)).relative_to(self._directory.absolute())) for manager, step in candidates
        ]
        for position, (manager, step) in enumerate(candidates):
            try:
                with _quiet_orbax():
                    return _restore(manager, step, like)
            except (MemoryError, PermissionError):  # The machine's trouble, not the checkpoint's.
                raise
            except Exception as error:  # Orbax and TensorStore raise many kinds for a damaged checkpoint.
                remedy = f"falling back to {names[position + 1]}" if position + 1 < len(names) else "none is left"
                self._warn(f"checkpoint {names[position]} is damaged ({_reason(error)}); {remedy}")
        if candidates:
            raise RunError(
                f"got only damaged checkpoints in {self._directory} ({', '.join(names)}), need a whole one; "
                "try a backup of them, or train again with --overwrite"
            )
        return None


def _reason(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]


@contextlib.contextmanager
def _quiet_orbax() -> Iterator[None]:
    """Silences Orbax, which logs a traceback for a checkpoint that it cannot read; `warn` says it in one line."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _manager(directory: Path, keep: int, read_only: bool) -> ocp.CheckpointManager:
    if not read_only:
        directory.mkdir(parents=True, exist_ok=True)
    this = jax.process_index()  # Others have no part in what this process writes or reads.
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation_policy.LatestN(keep),
        create=False,
        read_only=read_only,
        save_interval_steps=0 if read_only else 1,
        cleanup_tmp_directories=not read_only,
        enable_async_checkpointing=False,
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=this, active_processes={this}, barrier_sync_key_prefix=directory.name
        ),
        lightweight_initialize=True,  # Otherwise a damaged checkpoint keeps the manager from opening at all.
    )
    with _quiet_orbax():
        return ocp.CheckpointManager(directory.absolute(), options=options)


def _save(manager: ocp.CheckpointManager, state: TrainState, progress: Progress) -> None:
    arrays = to_arrays(state)
    manager.save(
        int(state.iteration),
        args=ocp.args.Composite(
            state=ocp.args.StandardSave(arrays),
            progress=ocp.args.JsonSave(dataclasses.asdict(progress)),
        ),
        force=True,
    )


def _restore(manager: ocp.CheckpointManager, step: int, like: TrainState) -> tuple[TrainState, Progress]:
    template = _template(like) | _stored_config(Path(manager.directory) / str(step) / _STATE)
    restored = manager.restore(
        step,
        args=ocp.args.Composite(state=ocp.args.StandardRestore(template), progress=ocp.args.JsonRestore()),
    )
    return from_arrays(restored[_STATE], like), Progress(**restored["progress"])


def _stored_config(path: Path) -> dict[str, np.ndarray]:
    """The configuration's numbers, which versions up to 0.2 stored: Orbax wants to restore all that is there."""
    with ocp.StandardCheckpointer() as checkpointer:
        stored = checkpointer.metadata(path)
    names = getattr(stored, "item_metadata", stored).keys()
    return {name: np.empty((), np.float32) for name in names if name.startswith("config.")}


def _plain(state: TrainState) -> TrainState:
    """The state as it is stored: with the bits of its key, and without the configuration, which the run keeps."""
    nothing: Any = None
    return dataclasses.replace(state, key=jax.random.key_data(state.key), config=nothing)


def leaf_name(path: jax.tree_util.KeyPath) -> str:
    """The place of a leaf in its pytree, as the name under which it is stored."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def to_arrays(state: TrainState) -> dict[str, np.ndarray]:
    """Everything but the configuration, by its place in the pytree."""
    return {leaf_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(_plain(state))}


def _template(like: TrainState) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(_plain, like))
    return {leaf_name(path): np.empty(leaf.shape, leaf.dtype) for path, leaf in leaves}


def from_arrays(arrays: dict[str, np.ndarray], like: TrainState) -> TrainState:
    """The inverse of `to_arrays`, with the structure and the configuration of another state, maybe an abstract one."""
    plain = jax.eval_shape(_plain, like)
    state = jax.tree_util.tree_map_with_path(lambda path, _: jnp.asarray(arrays[leaf_name(path)]), plain)
    return dataclasses.replace(state, key=jax.random.wrap_key_data(state.key), config=like.config)
