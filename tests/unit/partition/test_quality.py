"""`quality`: unbiased by enumeration, an error bar that is the spread, agreement as others have it; and the curve."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling.partition import _quality


def components(losses, regions, weights):
    n = len(weights)
    sums = np.array([np.bincount(regions, weights=np.asarray(losses, float) ** p, minlength=n) for p in range(3)])
    return _quality._components(sums, np.asarray(weights, float))


# ------------------------------------------------------------------------------ variance between regions


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=2), min_size=1, max_size=3),
    st.lists(st.integers(2, 3), min_size=3, max_size=3),
    st.lists(st.integers(1, 5), min_size=3, max_size=3),
)
def test_both_components_are_unbiased(values, n, weights):
    """Exactly: the mean over all outcomes of n_k draws from each region's values is the truth, whatever n, w."""
    k = len(values)
    n, w = n[:k], np.array(weights[:k]) / sum(weights[:k])
    outcomes = [list(itertools.product(some, repeat=m)) for some, m in zip(values, n, strict=True)]
    regions = np.repeat(np.arange(k), n)
    found = np.mean([components(sum(each, ()), regions, weights[:k]) for each in itertools.product(*outcomes)], axis=0)
    mean, variance = np.array([np.mean(some) for some in values]), np.array([np.var(some) for some in values])
    assert found[0] == pytest.approx((w * (mean - (w * mean).sum()) ** 2).sum(), abs=1e-9)
    assert found[1] == pytest.approx((w * variance).sum(), abs=1e-9)


def world(rng, share, *, n=3000, k=30):
    """Losses of which this share of the variance is between regions."""
    labels = rng.integers(0, k, n)
    labels[:k] = np.arange(k)
    mean = rng.normal(size=k)
    mean = (mean - mean[labels].mean()) / mean[labels].std()
    return labels, np.sqrt(share) * mean[labels] + np.sqrt(1 - share) * rng.normal(size=n)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_the_error_bar_is_the_spread(share):
    """Of 120 worlds the mean is the truth within 6 standard errors (1e-9), and the error bar the spread within 40%.

    The spread of 120 has a relative error of 6.5%: 40% is six of them.
    """
    rng = np.random.default_rng(0)
    found = []
    for _ in range(120):
        labels, losses = world(rng, share)
        each = aria.quality(aria.Partition.from_labels(labels), losses=losses)
        found.append((each.between, each.between_error))
    between, error = np.array(found).T
    assert abs(between.mean() - share) < 6 * between.std() / np.sqrt(120) + 0.003  # a ratio of two unbiased numbers
    assert error.mean() == pytest.approx(between.std(), rel=0.4)


def test_regions_by_chance_explain_nothing():
    """Also many small ones, where the naive share would be 1 / 3. Six standard errors."""
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(2000), 3))
    found = aria.quality(aria.Partition.from_labels(labels), losses=rng.exponential(size=6000))
    assert abs(found.between) < 6 * found.between_error < 0.2
    assert found.measured == 1


def test_losses_by_region_alone_are_between_regions():
    labels = np.arange(100) % 4
    found = aria.quality(aria.Partition.from_labels(labels), losses=labels * 7.0)
    assert (found.between, found.between_error) == (1, 0)
    assert aria.quality(aria.Partition.from_labels(labels), losses=np.full(100, 3.0)).between == 0


def test_unknown_losses_are_left_out_and_units_do_not_matter():
    rng = np.random.default_rng(0)
    labels, losses = world(rng, 0.3)
    pool = aria.Partition.from_labels(labels)
    plain = aria.quality(pool, losses=losses)
    for unit in (1e-150, 1e-9, 1e140):
        scaled = aria.quality(pool, losses=losses * unit)
        assert scaled.between == pytest.approx(plain.between)
        assert scaled.between_error == pytest.approx(plain.between_error)
    some = rng.permutation(3000)[:1500]
    known = np.full(3000, np.nan)
    known[some] = losses[some]
    holes = aria.quality(pool, losses=known)
    by_items = aria.quality(pool, losses=losses[some], items=some)
    assert holes.between == pytest.approx(by_items.between)  # the groups of the jackknife are by order
    odd = known.copy()
    odd[np.isnan(known)] = np.inf
    assert aria.quality(pool, losses=odd).between == holes.between
    without = np.where(labels == 3, np.nan, losses)
    assert aria.quality(pool, losses=without).measured == pytest.approx(1 - (labels == 3).mean())


def test_a_sample_that_is_not_the_pools_is_weighted_by_the_pool():
    """Twenty times as many losses of one region: the share is that of the pool, not of the sample. Six errors."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [9000, 1000])
    losses = np.where(labels == 0, 0.0, 3.0) + rng.normal(size=10_000)
    truth = 0.09 * 9 / (0.09 * 9 + 1)
    items = np.concatenate([rng.integers(0, 9000, 1000), rng.integers(9000, 10_000, 20_000)])
    found = aria.quality(aria.Partition.from_labels(labels), losses=losses[items], items=items)
    assert abs(found.between - truth) < 6 * found.between_error + 0.02  # the items' own noise is part of the pool
    assert found.between_error < 0.03


# ------------------------------------------------------------------------------------------ embeddings


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=60))
def test_agreement_is_scikit_learns(pairs):
    metrics = pytest.importorskip("sklearn.metrics")
    a, b = np.array(pairs).T
    assert _quality._adjusted_rand(a, b) == pytest.approx(metrics.adjusted_rand_score(a, b))


def blobs(k, n, *, d=4, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % k
    return labels, 9.0 * rng.normal(size=(k, d))[labels] + rng.normal(size=(n, d))


def test_separate_blobs_are_stable_and_noise_is_not():
    _, embeddings = blobs(5, 4000, d=8)
    noise = np.random.default_rng(1).normal(size=(4000, 8))
    found = [aria.quality(aria.KMeansPartitioner(n_regions=5).fit(x), x, refits=3) for x in (embeddings, noise)]
    assert found[0].stability > 0.7 > 0.5 > found[1].stability
    assert found[0].explained > 0.9 > 0.5 > found[1].explained > 0
    assert np.isfinite(found[0].stability_error)
    again = aria.quality(aria.KMeansPartitioner(n_regions=5).fit(noise), noise, refits=3)
    assert again == found[1]


def test_explained_is_one_minus_inertia_over_variance():
    _, x = blobs(3, 300)
    pool = aria.KMeansPartitioner(n_regions=6).fit(x)
    within = np.square(x - pool.centers[pool.labels]).sum()
    assert aria.quality(pool, x, refits=0).explained == pytest.approx(1 - within / np.square(x - x.mean(0)).sum())
    spherical = aria.KMeansPartitioner(n_regions=6, spherical=True).fit(x)
    unit = x / np.linalg.norm(x, axis=1)[:, None]
    within = np.square(unit - spherical.centers[spherical.labels]).sum()
    assert aria.quality(spherical, x * 5, refits=0).explained == pytest.approx(
        1 - within / np.square(unit - unit.mean(0)).sum()
    )


def test_labels_by_chance_explain_no_embeddings():
    """Without centres the means are of the sample; corrected for that."""
    x = np.random.default_rng(0).normal(size=(3000, 50))
    pool = aria.Partition.from_labels(np.random.default_rng(1).permutation(np.arange(3000) % 600))
    found = aria.quality(pool, x)
    assert abs(found.explained) < 0.02
    assert found.stability is None


class Nameless(aria.Partitioner):
    def fit(self, embeddings, *, names=None):
        return aria.Partition.from_labels((embeddings[:, 0] > 0).astype(int))


def test_what_does_not_fit_is_refused():
    _, x = blobs(3, 30)
    pool = aria.KMeansPartitioner(n_regions=3).fit(x)
    for call, words in (
        (lambda: aria.quality([0, 1]), "partition: expected an instance of Partition"),
        (lambda: aria.quality(pool, x[:9]), "embeddings: expected 30 rows"),
        (lambda: aria.quality(pool, losses=[1.0]), "losses: expected 30 numbers, got 1"),
        (lambda: aria.quality(pool, losses=[1.0], items=[0]), "losses: expected two finite losses in one region"),
        (lambda: aria.quality(pool, losses=np.full(30, np.nan)), "losses: expected two finite losses"),
        (lambda: aria.quality(pool, losses=[1.0], items=[30]), "items: expected values in"),
        (lambda: aria.quality(pool, items=[0]), "items: expected losses= beside it"),
        (lambda: aria.quality(pool, x, refits=-1), "refits=-1"),
        (lambda: aria.quality(pool, x, partitioner=3), "partitioner: expected an instance of Partitioner"),
        (lambda: aria.quality(pool, partitioner=Nameless()), "partitioner: expected embeddings= beside it"),
        (lambda: aria.quality(pool, x, partitioner=Nameless()), "partitioner: expected one whose partitions have cent"),
        (lambda: aria.quality(aria.KMeansPartitioner(n_regions=16).fit(x), x), "refits: expected 0 for 16 regions"),
        (lambda: aria.quality_curve(x, n_regions=[]), "n_regions: expected at least one"),
        (lambda: aria.quality_curve(x, n_regions=[0]), "n_regions: expected values >= 1"),
        (lambda: aria.quality_curve(x, partitioner=3), "partitioner: expected a function"),
        (lambda: aria.quality_curve(x, partitioner=lambda k: k), "partitioner: expected an instance of Partitioner"),
        (lambda: aria.quality_curve(x, n_regions=[2]).values("odd"), "name='odd': expected one of n_regions"),
    ):
        with pytest.raises(ValueError, match=f"^{words}"):
            call()


# ------------------------------------------------------------------------------------------- how many


def test_as_many_regions_are_recommended_as_losses_differ_by():
    """Eight blobs, each with its own mean loss: fewer regions explain less, more do not explain more."""
    labels, x = blobs(8, 4000, d=8, seed=3)
    losses = 2.0 * np.random.default_rng(0).normal(size=8)[labels] + np.random.default_rng(1).normal(size=4000)
    curve = aria.quality_curve(x, losses, n_regions=[2, 64, 4, 16, 32], seed=0)
    assert [each.n_regions for each in curve.qualities] == [2, 4, 16, 32, 64]
    assert curve.recommended == 16
    between = curve.values("between")
    assert between[0] < between[2] > 0.5
    assert abs(between[4] - between[2]) < 0.05
    assert np.isnan(curve.values("stability_error")).all()
    assert aria.quality_curve(x, n_regions=[4, 8], refits=0).recommended is None
    default = aria.quality_curve(x[:700], refits=0)
    assert [each.n_regions for each in default.qualities] == [16]


def test_the_figure_has_a_line_for_each_thing_known():
    pytest.importorskip("matplotlib")
    from aria_sampling import report

    labels, x = blobs(8, 1200)
    curve = aria.quality_curve(x, labels + np.random.default_rng(0).normal(size=1200), n_regions=[2, 8, 32])
    figure = report.regions_figure(curve)
    (axis,) = figure.axes
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert len(texts) == 3
    assert f"{curve.recommended}" in figure.get_suptitle()
    (axis,) = report.regions_figure(aria.quality_curve(x, n_regions=[2, 8], refits=0)).axes
    assert len(axis.get_legend().get_texts()) == 1
    with pytest.raises(ValueError, match="curve: expected an instance of QualityCurve"):
        report.regions_figure(3)


def test_a_quality_says_what_is_known():
    labels, x = blobs(3, 300)
    pool = aria.KMeansPartitioner(n_regions=3).fit(x)
    whole = str(aria.quality(pool, x, labels.astype(float), refits=1)).splitlines()
    assert len(whole) == 4
    assert str(aria.quality(pool)).splitlines() == whole[:1]
