"""Trained policies that come with the package, by name.

A policy is one `.npz` file: its parameters by their place in the pytree, and as JSON the configuration of its run and
where it comes from.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rmft_jax import config as config_lib
from rmft_jax.agents import TrainedAgent, init_params, trained_agent
from rmft_jax.checkpoints import leaf_name
from rmft_jax.config import ConfigError, RunConfig
from rmft_jax.storage import RunError, replacing

POLICIES = Path(__file__).parent / "policies"
_ABOUT = "about"


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A trained policy.

    agent: plays it, without exploration.
    config: of the run that trained it.
    preset: its name.
    provenance: the iteration of its checkpoint, what was measured at the end of the run, device and versions.
    """

    agent: TrainedAgent
    config: RunConfig
    preset: str
    provenance: Mapping[str, Any]


def pretrained_names() -> list[str]:
    """The names of the policies that come with the package."""
    return sorted(path.stem for path in POLICIES.glob("*.npz"))


def load_pretrained(name: str) -> Pretrained:
    """A policy that comes with the package.

    Raises:
      ConfigError: if there is none of this name.
      RunError: if its file is damaged.
    """
    if name not in pretrained_names():
        names = pretrained_names()
        raise ConfigError(f"got pretrained policy {name!r}, need one of {', '.join(names)}; try pretrained:{names[0]}")
    return read_policy(POLICIES / f"{name}.npz")


def read_policy(path: Path) -> Pretrained:
    """A policy from a file of `write_policy`.

    Raises:
      RunError: if the file is damaged, or does not fit the network of its configuration.
    """
    try:
        # Opened here: of a file that is no archive, NumPy leaves its own handle open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        about = json.loads(str(arrays.pop(_ABOUT)))
        config = config_lib.from_dict(about["config"])
        like = jax.eval_shape(lambda: init_params(config.rmft, jax.random.key(0)))
        params = jax.tree_util.tree_map_with_path(lambda at, leaf: _fitting(arrays, leaf_name(at), leaf), like)
        return Pretrained(trained_agent(config.rmft, params), config, about["preset"], about["provenance"])
    except Exception as error:  # NumPy, zipfile and JSON raise many kinds for a damaged file.
        raise RunError(f"cannot use the policy {path} ({error}); try installing the package again") from error


def _fitting(arrays: Mapping[str, np.ndarray], name: str, like: jax.ShapeDtypeStruct) -> jax.Array:
    found = arrays[name]
    if (found.shape, found.dtype) != (like.shape, like.dtype):
        raise ValueError(f"got {name} of shape {found.shape}, need {like.shape}")
    return jax.numpy.asarray(found)


def write_policy(path: Path, agent: TrainedAgent, config: RunConfig, preset: str, provenance: dict[str, Any]) -> None:
    """Writes a policy, whole or not at all; the same policy always gives the same bytes."""
    leaves = jax.tree_util.tree_leaves_with_path(agent.params)
    arrays: dict[str, Any] = {leaf_name(at): np.asarray(leaf) for at, leaf in leaves}
    about = {"config": config_lib.to_dict(config), "preset": preset, "provenance": provenance}
    arrays[_ABOUT] = np.asarray(json.dumps(about, sort_keys=True))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
