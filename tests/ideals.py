"""What the experiments of the theory would measure if everything were as predicted, but for noise of mean 0."""

import math

import numpy as np

from test_theory_attention import ideal_anytime, ideal_attention
from test_theory_selection import ideal_drift, ideal_survivorship
from theory import finite_samples, hedge, hedge_regret, lemma, metric, theorem1, theorem2, theorem3, theorem4
from theory.play import HORIZONS, Played
from theory.walks import STRONG


def _noisy(values: np.ndarray, spread: float = 1e-4) -> np.ndarray:
    """Four runs that deviate a little from what is predicted, by nothing on average."""
    signs = np.asarray([1.0, -1.0, 0.5, -0.5]).reshape(4, *(1,) * np.ndim(values))
    return np.asarray(values) + spread * signs


def _walked(step: np.ndarray, count: int, spread: float = 1e-3) -> np.ndarray:
    """Four runs of as many steps, which deviate from the mean step by nothing on average, nor from one to the next."""
    size = float(np.abs(step).max()) or 1.0
    draws = np.random.default_rng(3).normal(size=(4, count, *step.shape))
    draws -= draws.mean(axis=(0, 1))
    steps = step + spread * size * draws
    return np.concatenate([np.zeros((4, 1, *step.shape)), np.cumsum(steps, axis=1)], axis=1)


def _ideal_lemma() -> lemma.Measured:
    shares = np.tile(np.arange(1.0, 11.0) / 55, (4, 1))
    along = {s: _noisy(np.asarray(lemma.order_statistic_mean(*s))) for s in lemma.SELECTIONS}
    rounds = {s: values[:, None] * shares + 1e-6 * np.eye(4, 10) for s, values in along.items()}
    return lemma.Measured(along, rounds, shares, {s: _noisy(np.zeros(())) for s in along})


def _ideal_theorem1() -> theorem1.Measured:
    paths = {
        name: _walked(theorem1.step_per_iteration(config) * np.eye(config.environment.num_arms), 10)
        for name, config in theorem1.SETTINGS.items()
    }
    return theorem1.Measured(paths, _walked(np.zeros((3, 3)), 10, 1e-5))


def _ideal_theorem2() -> theorem2.Measured:
    runs: list[dict[float, np.ndarray]] = [{}, {}]
    for penalty in theorem2.PENALTIES:
        target, rate = theorem2.fixed_point(penalty), theorem2.contraction(penalty)
        for run, start in zip(runs, (0.0, 2 * target), strict=True):
            run[penalty] = _noisy(target + (start - target) * rate ** np.arange(theorem2.NUM_ITERATIONS + 1), 1e-7)
    return theorem2.Measured(*runs)


def _as_played(regret: np.ndarray) -> np.ndarray:
    return _noisy(np.repeat(np.asarray(regret)[:, None], 3, axis=1), 1e-5)


def _ideal_theorem3() -> theorem3.Measured:
    step = theorem1.step_per_iteration(theorem3.TRAINING)
    policies = {
        name: np.tile([theorem3.stopping_time(T, norm) * step * np.eye(3) for T in HORIZONS], (4, 1, 1, 1))
        for name, (_, norm) in theorem3.OPPONENTS.items()
    }
    stopped = {
        name: _as_played(np.asarray([0.73 * theorem3.no_regret_bound(T, norm) for T in HORIZONS]))
        for name, (_, norm) in theorem3.OPPONENTS.items()
    }
    norm = theorem3.OPPONENTS["alternating"].norm
    stops = [theorem3.stopping_time(T, norm) * step for T in HORIZONS]
    alternating = np.asarray([theorem3.alternating_regret(eta, T) for eta, T in zip(stops, HORIZONS, strict=True)])
    late = np.asarray([theorem3.alternating_regret(theorem3.NUM_ITERATIONS * step, T) for T in HORIZONS])
    stopped["alternating"] = _as_played(alternating)
    perfect = np.asarray([theorem3.no_regret_bound(T, 1.0) for T in HORIZONS])
    return theorem3.Measured(Played(stopped, {"alternating": _as_played(late)}), policies, perfect)


def _ideal_hedge() -> np.ndarray:
    return _walked(hedge.hedge_step(hedge.SETTING_SOFTMAX) * hedge.CENTRING, 10)


def _ideal_hedge_regret() -> hedge_regret.Measured:
    rates = np.asarray([hedge_regret.best_rate(T) for T in HORIZONS])
    policies = np.tile(rates[:, None, None] * hedge.CENTRING, (4, 1, 1, 1))
    last = np.tile(2.0 * hedge.CENTRING, (4, 1, 1))
    alternating = [hedge_regret.hedge_alternating_regret(r, T) for r, T in zip(rates, HORIZONS, strict=True)]
    late = [hedge_regret.hedge_alternating_regret(2.0, T) for T in HORIZONS]
    bound = np.asarray([hedge_regret.hedge_bound(T) for T in HORIZONS])
    played = Played({name: _as_played(0.73 * bound) for name in hedge_regret.OPPONENTS}, {})
    played.stopped["alternating"] = _as_played(np.asarray(alternating))
    played.overtrained["alternating"] = _as_played(np.asarray(late))
    perfect = {name: 0.73 * np.repeat(bound[:, None], 3, axis=1) for name in hedge_regret.OPPONENTS}
    return hedge_regret.Measured(played, policies, last, perfect)


def _ideal_theorem4() -> theorem4.Measured:
    def ended(setting: theorem4.Setting) -> np.ndarray:
        size = setting.num_arms
        noise = np.random.default_rng(4).normal(size=(6, 1, size, size))
        return theorem4.regret_loss_minimizer(*setting) * np.eye(size) + 1e-4 * (noise - noise.mean(axis=0))

    return theorem4.Measured({setting: ended(setting) for setting in theorem4.SETTINGS})


def _ideal_finite_samples() -> finite_samples.Measured:
    step = theorem1.step_per_iteration(STRONG) * np.eye(3)
    wanted, bias = finite_samples.moments(STRONG, np.random.default_rng(0))

    def walked(M: int, count: int) -> np.ndarray:
        draws = np.random.default_rng(M).normal(size=(8, count, 3, 3))
        draws -= draws.mean(axis=(0, 1))
        draws *= math.sqrt(wanted / M / np.mean(np.sum(draws**2, axis=(2, 3))))
        return np.concatenate([np.zeros((8, 1, 3, 3)), np.cumsum(step * (1 + bias / M) + draws, axis=1)], axis=1)

    coupled = np.stack([walked(finite_samples.FEW, 8)[0] + start for start in (0.0, 1.0)])
    paths = {M: walked(M, count) for M, count in finite_samples.NUM_ITERATIONS.items()}
    return finite_samples.Measured(paths, walked(finite_samples.FEW, 256), coupled, 0)


def _ideal_metric() -> metric.Measured:
    horizons = metric.HORIZONS
    exactly = np.asarray([[metric.turning_regret(d, T) for T in horizons] for d in metric.DEVIATIONS])
    known = np.tile(np.sqrt(horizons), (len(metric.DEVIATIONS), 1))
    policies = {
        name: np.tile([np.eye(3) / (norm * math.sqrt(T)) for T in horizons], (2, 1, 1, 1))
        for name, (_, norm) in theorem3.OPPONENTS.items()
    }
    regret = {name: 0.6 * norm * np.tile(np.sqrt(horizons), (2, 1)) for name, (_, norm) in theorem3.OPPONENTS.items()}
    return metric.Measured(np.stack([exactly, known]), policies, regret, regret)


IDEAL = {
    "lemma": _ideal_lemma,
    "theorem1": _ideal_theorem1,
    "theorem2": _ideal_theorem2,
    "theorem3": _ideal_theorem3,
    "hedge": _ideal_hedge,
    "hedge_regret": _ideal_hedge_regret,
    "theorem4": _ideal_theorem4,
    "finite_samples": _ideal_finite_samples,
    "metric": _ideal_metric,
    "attention": ideal_attention,
    "anytime": ideal_anytime,
    "survivorship": ideal_survivorship,
    "drift": ideal_drift,
}
