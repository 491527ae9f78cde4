"""Estimators and policies fed by hand, round by round, the way an allocator feeds them."""

import numpy as np

import aria_sampling as aria


def advanced(estimator, state, feedback):
    """The state one round later; `state` stays what it was."""
    rows = {name: array[feedback.regions] for name, array in state.rows.items()}
    rows, shared = estimator.update(rows, state.shared, feedback)
    whole = {name: array.copy() for name, array in state.rows.items()}
    for name, array in whole.items():
        array[feedback.regions] = rows[name]
    return aria.State(whole, shared)


def fed(estimator, rounds, k):
    """The state of k regions after rounds of (regions, losses)."""
    state = estimator.init(k)
    for regions, losses in rounds:
        state = advanced(estimator, state, aria.Feedback.from_rows(regions, losses, n_regions=k))
    return state


def after(estimator, rounds, k):
    """The estimate of k regions after rounds of (regions, losses)."""
    return estimator.estimate(fed(estimator, rounds, k))


def scores_after(policy, *means):
    """The log scores after a history of estimated means, whatever the kind of the policy."""
    state = policy.init(len(means[0]))
    for mean in means:
        mean = np.array(mean, dtype=np.float64)
        estimate = aria.Estimate(mean, *(np.ones(len(mean)) for _ in range(3)))
        if not policy.local:
            state = policy.update(state, estimate)
    return policy.log_score(estimate, state.shared) if policy.local else policy.log_score(state)
