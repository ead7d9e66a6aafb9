"""One format for everything that holds weights: arrays by name in an `.npz` file, and beside them what they are.

A file is written whole or not at all, and its parts have checksums, so that a damaged one is found out. Checkpoints,
the policies of sweeps and those that come with the package are such files; NumPy alone can read them.
"""

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree

from rmft_jax.agents import TrainedAgent
from rmft_jax.config import ConfigError, Params
from rmft_jax.config.checks import require
from rmft_jax.method.settings import RunConfig, from_dict
from rmft_jax.running.files import RunError, read_bytes, replacing

PREFIX = "pretrained:"
"""What stands before the name of a policy that comes with the package."""
PRETRAINED = Path(__file__).parent / "policies"
_ABOUT = "about"


class DamagedFileError(Exception):
    """A file of weights that is not whole, or not such a file."""


@dataclasses.dataclass(frozen=True)
class TrainedPolicy:
    """A trained policy, and where it comes from.

    agent: plays it, without exploration.
    config: of the run that trained it.
    preset: its name.
    provenance: the iteration of its checkpoint, and what else is known: what was measured at the end of the run, device
      and versions.
    """

    agent: TrainedAgent
    config: RunConfig
    preset: str
    provenance: Mapping[str, Any]

    def __repr__(self) -> str:
        known = [f"{name}={self.provenance[name]!r}" for name in ("iteration", "cell") if name in self.provenance]
        return ", ".join([f"TrainedPolicy(preset={self.preset!r}", *known, f"agent={self.agent!r})"])


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray], about: Any) -> None:
    """Writes arrays and what they are, fit for JSON; the same content always gives the same bytes.

    Raises:
      OSError: if it cannot be written; what was there before stays.
    """
    content: dict[str, Any] = {**arrays, _ABOUT: np.asarray(json.dumps(about, sort_keys=True))}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **content)


def read_arrays(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    """What `write_arrays` wrote.

    Raises:
      RunError: if the file is missing or cannot be read.
      DamagedFileError: if it is damaged.
    """
    content = read_bytes(path)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            # Each is read whole, which checks it; `numpy.load` reads what the header asks for, and may stop before.
            parts = {name.removesuffix(".npy"): archive.read(name) for name in archive.namelist()}
        arrays = {name: np.lib.format.read_array(io.BytesIO(part)) for name, part in parts.items()}
        return arrays, json.loads(str(arrays.pop(_ABOUT)))
    except Exception as error:  # Of many kinds, depending on where the damage is.
        raise DamagedFileError(f"{path} is damaged ({error or type(error).__name__})") from error


def named(tree: PyTree, prefix: str = "") -> dict[str, np.ndarray]:
    """The leaves of a pytree by their places in it."""
    return {prefix + leaf_name(at): np.asarray(leaf) for at, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def leaf_name(path: jax.tree_util.KeyPath) -> str:
    """The place of a leaf in its pytree, as the name under which it is stored."""
    return jax.tree_util.keystr(path, simple=True, separator=".")


def fitted(arrays: Mapping[str, np.ndarray], like: PyTree, prefix: str = "") -> PyTree:
    """The inverse of `named`, given the shapes.

    Raises:
      DamagedFileError: if an array is missing or has another shape.
    """

    def find(path: jax.tree_util.KeyPath, leaf: Any) -> np.ndarray:
        name = prefix + leaf_name(path)
        found = arrays.get(name)
        if found is None or (found.shape, found.dtype) != (leaf.shape, leaf.dtype):
            got = "nothing" if found is None else f"shape {found.shape} of {found.dtype}"
            raise DamagedFileError(f"got {got} for {name}, need shape {leaf.shape} of {leaf.dtype}")
        return found

    return jax.tree_util.tree_map_with_path(find, like)


def write_policy(
    path: str | Path, params: Params, config: RunConfig, preset: str, provenance: Mapping[str, Any]
) -> None:
    """Writes a policy with all that is needed to play it."""
    about = {"config": config.flat(), "preset": preset, "provenance": dict(provenance)}
    write_arrays(Path(path), named(params), about | founded(config))


def read_policy(path: str | Path) -> TrainedPolicy:
    """A policy from a file of `write_policy`.

    Raises:
      RunError: if the file is missing or damaged, or does not fit the network of its configuration.
    """
    try:
        arrays, about = read_arrays(Path(path))
        config = from_dict(about["config"])
        require_same_foundation(about, config)
        return policy_of(config, about["preset"], about["provenance"], lambda like: fitted(arrays, like))
    except (DamagedFileError, ConfigError, LookupError, TypeError) as error:
        raise RunError(f"cannot use the policy {path} ({error}); try another file, or make it again") from error


def founded(config: RunConfig) -> dict[str, str]:
    """What a record says of the files that a policy is built upon; nothing where there are none."""
    found = config.rmft.policy.foundation
    return {"foundation": found} if found else {}


def require_same_foundation(record: Mapping[str, Any], config: RunConfig) -> None:
    """Raises `ConfigError` if a policy is built upon other files than those that a record names."""
    was, found = record.get("foundation", ""), config.rmft.policy.foundation
    got = f"a model whose files are {found or 'none'}, trained upon {was or 'none'}"
    require(was == found, got, "the files that it was trained upon", "them, or training anew")


def policy_of(
    config: RunConfig, preset: str, provenance: Mapping[str, Any], params_like: Callable[[Params], Params]
) -> TrainedPolicy:
    """The policy of a configuration whose parameters are found by their shapes."""
    like = jax.eval_shape(lambda: config.rmft.init_params(jax.random.key(0)))
    params = jax.tree.map(jax.numpy.asarray, params_like(like))
    return TrainedPolicy(config.rmft.agent(params), config, preset, provenance)


def pretrained_names() -> list[str]:
    """The names of the policies that come with the package."""
    return sorted(path.stem for path in PRETRAINED.glob("*.npz"))


def load_pretrained(name: str) -> TrainedPolicy:
    """A policy that comes with the package.

    Raises:
      ConfigError: if there is none of this name.
      RunError: if its file is damaged.
    """
    if name not in pretrained_names():
        names = pretrained_names()
        raise ConfigError(f"got pretrained policy {name!r}, need one of {', '.join(names)}; try pretrained:{names[0]}")
    return read_policy(PRETRAINED / f"{name}.npz")
