"""What several tests need: random pools, random histories of feedback, and how to run one."""

import numpy as np

import aria_sampling as aria


def random_labels(rng, n_regions, n_items):
    """Labels with every region filled and sizes far apart."""
    weights = rng.dirichlet(np.full(n_regions, 0.5))
    labels = np.concatenate([np.arange(n_regions), rng.choice(n_regions, n_items - n_regions, p=weights)])
    return rng.permutation(labels)


def small_pool(n_regions=6, n_items=60, seed=0):
    return aria.Partition.from_labels(random_labels(np.random.default_rng(seed), n_regions, n_items))


def loss_of(draw, scale=None):
    """A loss that is a function of the round and the items alone, so that any order of events can compute it."""
    noise = np.abs(np.sin(draw.items * 12.9898 + draw.round * 78.233)) + 0.05
    return noise * (1.0 + draw.regions % 5 if scale is None else scale[draw.regions])


def play(allocator, rounds, *, n=8, loss=loss_of):
    """Take whole rounds; return their draws."""
    draws = []
    for _ in range(rounds):
        draw = allocator.draw(n)
        allocator.observe(draw.regions, loss(draw))
        allocator.step()
        draws.append(draw)
    return draws


def same_draw(a, b):
    """Whether two draws are equal, bit for bit."""
    return (
        a.round == b.round
        and a.forced == b.forced
        and all(
            np.array_equal(getattr(a, name), getattr(b, name))
            for name in ("items", "regions", "probabilities", "weights")
        )
    )


def same_estimate(a, b):
    """Whether two estimates are equal, bit for bit (NaN equals NaN)."""
    return all(
        np.array_equal(getattr(a, name), getattr(b, name), equal_nan=True)
        for name in ("mean", "stderr", "count", "age")
    )
