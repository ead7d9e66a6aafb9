"""Users' code: files and modules that register environments, agents, policies and the rest when they are imported."""

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from rmft_jax.config.checks import ConfigError, either, first_line

GROUP = "rmft_jax.plugins"
"""Entry points under which installed packages name the modules that register what they bring."""
_imported: dict[str, None] = {}
_OPTIONAL = {("policy", "text"): "rmft_jax.language.policy"}
"""Parts of this package that are imported when they are first named, by what they register."""


def import_code(name: str | os.PathLike[str]) -> None:
    """Imports a user's code, once: a file that ends in `.py`, or a module.

    Raises:
      ConfigError: if there is none, or it cannot be imported.
    """
    text = os.fspath(name)
    is_file, said = text.endswith(".py"), either(f"--import {text}", f"import_code({text!r})")
    spec = str(Path(text).resolve()) if is_file else text
    if spec in _imported:
        return
    if is_file and not Path(spec).is_file():
        raise ConfigError(f"got {said}, need a Python file that exists; try another path")
    try:
        if is_file:
            _import_file(Path(spec))
        else:
            importlib.import_module(text)
    except ConfigError as error:
        raise ConfigError(f"in {said}: {error}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ConfigError(
            f"got {said} ({first_line(error)}), need code that can be imported; try `python {text}`"
        ) from error
    _imported[spec] = None


def import_all(names: Iterable[str]) -> None:
    """Imports each of a user's files or modules."""
    for name in names:
        import_code(name)


def imported() -> list[str]:
    """What was imported so far, in order: whoever goes on elsewhere has to do the same."""
    return list(_imported)


@functools.cache
def load_plugins() -> None:
    """Imports what installed packages bring, once.

    Raises:
      ConfigError: if one of them cannot be imported.
    """
    for point in importlib.metadata.entry_points(group=GROUP):
        try:
            point.load()
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # Code that exits as it is imported, too.
            raise ConfigError(
                f"got the plugin {point.name} = {point.value} ({first_line(error)}), need one that can be imported; "
                "try installing it again, or without it"
            ) from error


def load_optional(kind: str, name: str | None = None) -> None:
    """Imports the part of this package that registers a name, if there is one; without a name all of its kind."""
    for (its_kind, its_name), module in _OPTIONAL.items():
        if its_kind == kind and name in (its_name, None):
            importlib.import_module(module)


def _import_file(path: Path) -> None:
    """As a module with a name of its own, the same in every process, so that its classes can be pickled."""
    name = f"rmft_import_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    # Beside it may lie what it imports, as where Python runs it; last, so that it hides nothing.
    if (folder := str(path.parent)) not in sys.path:
        sys.path.append(folder)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
