import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Many tests compile the same small program, in this process or in one that they start; once is enough.
_CACHE = "rmft-jax-compiled-"
if _CACHE not in os.environ.get("JAX_COMPILATION_CACHE_DIR", ""):  # Workers, and tests within tests, inherit it.
    _cache = tempfile.TemporaryDirectory(prefix=_CACHE)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _cache.name
    # Programs of tests compile for longer than they run: without optimization that takes a third of the time. A flag
    # that another version of XLA does not know would end the process. Accelerators are tested as they are used. Tests
    # fill the cores already.
    _quick = "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    for _flags in (f"{_quick} --xla_cpu_use_fusion_emitters=false", _quick):
        _environment = os.environ | {"XLA_FLAGS": f"{_flags} {os.environ.get('XLA_FLAGS', '')}"}
        _tried = [sys.executable, "-c", "import jax, sys; sys.exit(jax.default_backend() != 'cpu')"]
        if not subprocess.run(_tried, env=_environment, check=False, stderr=subprocess.DEVNULL).returncode:
            os.environ["XLA_FLAGS"] = _environment["XLA_FLAGS"]
            break
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"

# One device, unless a test asks for more.
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "1")

# For `theory`, which is no part of the package. Last, so that the package is tested as installed.
sys.path.append(str(Path(__file__).parent.parent))

from jaxtyping import install_import_hook

# Every annotated shape and type is checked wherever a function of the package is called.
install_import_hook("rmft_jax", "annotations.checked")

import hypothesis
import jax
import pytest

import talking
from rmft_jax.language.api.server import Server, serve
from rmft_jax.method.settings import RMFTConfig
from rmft_jax.plotting.style import SHEETS
from runs import few_baselines
from worlds import TINY

# The examples of a test depend on its source alone, and no machine is too slow: a failure is always that of the change
# at hand.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.load_profile("fixed")

# Shapes must match and be meant: silent broadcasting hides mistakes.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="module")
def _forget_programs():
    """Thousands of compiled programs in one process exhaust the memory maps that it may have."""
    yield
    jax.clear_caches()


@pytest.fixture(autouse=True)
def _exact_products(request: pytest.FixtureRequest) -> Iterator[None]:
    """By default accelerators round the factors of a product to 8 or 11 bits, too few for what must equal another."""
    marked = request.node.get_closest_marker("accelerator") is not None
    exact = marked and jax.default_backend() != "cpu"
    with jax.default_matmul_precision("highest") if exact else contextlib.nullcontext():
        yield


@pytest.fixture(autouse=True, scope="session")
def _plain_fonts() -> Iterator[dict[str, int]]:
    """Cutting fonts to the letters of a figure takes a third of the time in which it is written.

    Yields the kinds of fonts that figures have outside of the tests, by style.
    """
    real = {name: sheet.rc["pdf.fonttype"] for name, sheet in SHEETS.items()}
    with pytest.MonkeyPatch.context() as patch:
        for sheet in SHEETS.values():
            patch.setitem(sheet.rc, "pdf.fonttype", 3)
        yield real


@pytest.fixture
def real_fonts(_plain_fonts, monkeypatch):
    """For tests of the fonts in figures."""
    for name, kind in _plain_fonts.items():
        monkeypatch.setitem(SHEETS[name].rc, "pdf.fonttype", kind)


@pytest.fixture(scope="module")
def few_rivals():
    """For modules whose runs matter for what they train."""
    with few_baselines("ucb1", "posterior_index"):
        yield


@pytest.fixture
def tiny() -> RMFTConfig:
    return TINY


@pytest.fixture
def chat_key(monkeypatch):
    """The key that `server` asks for."""
    monkeypatch.setenv("OPENAI_API_KEY", talking.SECRET)


@pytest.fixture
def server() -> Iterator[Server]:
    """A chat endpoint whose models play at random."""
    with serve(talking.by_seed, talking.tuned, api_key=talking.SECRET) as server:
        yield server
