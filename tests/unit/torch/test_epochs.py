"""The iterators of an `AriaSampler`, its epochs, and how it shards its rows."""

import warnings
from itertools import islice

import pytest

import aria_sampling as aria
from aria_sampling.torch import AriaSampler, RegionMixture
from tests.unit.torch.common import BATCH, build, expected, loss, make, train

EPOCHS, BATCHES = 3, 6

# ------------------------------------------------------------------------------ iterators and epochs


def test_iter_alone_does_nothing():
    sampler, loader = build(lag=2)
    iterator = iter(loader)
    index = next(iterator)
    for _ in range(3):
        iter(sampler)
    sampler.observe(index, loss(index))
    assert next(iterator).tolist() == expected(2, lag=2)[0][1]


def test_a_newer_iterator_takes_the_place_of_the_older():
    sampler, _ = build(lag=2)
    older, newer = iter(sampler), iter(sampler)
    rows = list(islice(older, BATCH))
    assert list(islice(newer, BATCH)) == rows  # nothing was observed: the same batch again
    with pytest.raises(RuntimeError, match="newer iterator"):
        next(older)
    sampler.observe(rows, loss(rows))
    assert len(list(islice(newer, BATCH))) == BATCH


def test_a_loaded_state_takes_the_place_of_an_iterator():
    sampler, loader = build(lag=2)
    state = sampler.state_dict()
    iterator = iter(loader)
    next(iterator)
    sampler.load_state_dict(state)
    with pytest.raises(RuntimeError, match="a loaded state"):
        next(iterator)


def test_an_epoch_that_is_never_observed_is_said_to_come_again():
    sampler, loader = build(lag=BATCHES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = [index.tolist() for index in loader]
    with pytest.warns(aria.AriaWarning, match="none of its 6 batches was observed. It is drawn again"):
        second = [index.tolist() for index in loader]
    assert first == second
    assert sampler.allocator.round == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(*build(lag=BATCHES))


def test_an_epoch_left_at_its_end_goes_on_with_what_was_not_observed():
    """All was drawn and only half observed: no warning, and the other half comes again."""
    sampler, loader = build(lag=BATCHES)
    batches = [index.tolist() for index in loader]
    for index in batches[:3]:
        sampler.observe(index, loss(index))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert next(iter(loader)).tolist() == batches[3]


def test_set_epoch_is_recorded_and_changes_nothing():
    sampler, loader = build()
    seen = []
    for epoch in (5, 5, 0):
        sampler.set_epoch(epoch)
        assert sampler.epoch == sampler.state_dict()["epoch"] == epoch
        seen += train(sampler, loader)
    assert seen == expected(EPOCHS * BATCHES)[0]
    for wrong in (-1, 0.5, "1"):
        with pytest.raises(ValueError, match="epoch"):
            sampler.set_epoch(wrong)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_the_ranks_blocks_are_the_global_batches(drop_last, ranks):
    """Dealt out to 1, 2 or 4 samplers on one process: put together they are what the allocator drew."""
    samplers = [build(num_replicas=ranks, rank=rank, drop_last=drop_last, lag=9)[0] for rank in range(ranks)]
    wanted = expected(5 if drop_last else 6, lag=9)[0]
    parts = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(part) for part in parts]
    streams = [iter(part) for part in parts]
    sizes = [len(batch) for batch in wanted]
    for batch, size in zip(wanted, sizes, strict=True):
        blocks = [size * (rank + 1) // ranks - size * rank // ranks for rank in range(ranks)]
        assert [item for s, n in zip(streams, blocks, strict=True) for item in islice(s, n)] == batch
        assert size < BATCH or set(blocks) == {BATCH // ranks}


def test_an_allocator_put_back_under_its_sampler_has_whole_epochs():
    sampler, loader = build()
    start = sampler.allocator.state_dict()
    epoch = len(train(sampler, loader))
    train(sampler, loader, 2)
    sampler.allocator.load_state_dict(start)
    assert len(train(sampler, loader)) == epoch


@pytest.mark.parametrize("lag", [0, 3])
def test_new_epoch_leaves_out_the_rest(lag):
    """Batches in flight are drawn again, as the first of the new epoch; the stream is the allocator's."""
    sampler, loader = build(lag=lag)
    seen = train(sampler, loader, 2)
    next(iter(loader))
    sampler.new_epoch()
    epoch = train(sampler, loader)
    assert [len(batch) for batch in epoch] == [BATCH] * (BATCHES - 1) + [7]
    assert seen + epoch[:3] == expected(5, lag=lag)[0]
    sampler.new_epoch()  # at the end of one it changes nothing
    assert len(train(sampler, loader)) == BATCHES


def test_a_stream_that_failed_can_be_gone_on_with():
    sampler, _ = build()
    rows = iter(sampler)
    index = list(islice(rows, BATCH))
    for _ in range(2):
        with pytest.raises(aria.FeedbackLagError):
            next(rows)
    sampler.observe(index, loss(index))
    assert [*(next(rows) for _ in range(4)), *islice(rows, BATCH - 4)] == expected(2)[0][1]


@pytest.mark.parametrize("allocator", [None, aria.Partition.from_labels([0, 1]), AriaSampler])
def test_a_sampler_needs_an_allocator(allocator):
    with pytest.raises(ValueError, match="allocator"):
        AriaSampler(allocator, batch_size=1, num_samples=1)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"num_samples": 0.5}, "num_samples=0.5"),
        ({"drop_last": 1}, "drop_last=1"),
        ({"num_replicas": 5}, "batch_size=24: expected a multiple of num_replicas=5"),
        ({"num_replicas": 2, "rank": 2}, "rank=2"),
        ({"check_every": 0}, "check_every=0"),
        ({"data_rows_per_batch": -1}, "data_rows_per_batch=-1"),
        ({"num_samples": 25, "num_replicas": 2}, "last batch has 1 rows for 2 ranks"),
    ],
)
def test_a_sampler_refuses(settings, words):
    with pytest.raises(ValueError, match=words):
        build(**settings)


def test_coverage_that_is_known_only_as_rows_come_is_refused():
    """Here and in a mixture: nobody tells them of these rows."""
    allocator = make(coverage=aria.Coverage.online(make().partition))
    with pytest.raises(ValueError, match=r"which an AriaSampler does not know: .*Coverage\(partition, items=...\)"):
        allocator.sampler(batch_size=2, num_samples=4)
    with pytest.raises(ValueError, match=r"which a RegionMixture does not know"):
        RegionMixture({name: [1] for name in "abcdef"}, allocator)


@pytest.mark.parametrize("rows", [None, 0, 60])
def test_rows_with_data_of_their_own_are_told_to_every_draw(rows):
    """They are a part of the stream: more of them, and the covered regions are left to them sooner."""

    def covered():
        pool = make().partition
        return aria.Allocator(pool, coverage=aria.Coverage(pool, items=range(30)), target="uniform", seed=3)

    sampler, allocator = covered().sampler(batch_size=8, num_samples=80, data_rows_per_batch=rows), covered()
    seen = []
    for _ in range(6):
        seen.append(list(islice(sampler, 8)))
        sampler.observe(seen[-1], loss(seen[-1]))
        draw = allocator.draw(8, data_rows=rows)
        assert draw.items.tolist() == seen[-1]
        allocator.observe(draw.regions, loss(draw.items).numpy())
        allocator.step()
    assert sampler.allocator.digest() == allocator.digest()


def test_setting_the_lag_it_has_changes_nothing():
    allocator = make(lag=2)
    allocator.draw(4)
    allocator.step()
    before = allocator.digest()
    allocator.lag = 2
    assert (allocator.digest(), allocator.round) == (before, 1)
    with pytest.raises(RuntimeError, match="begun with lag=2"):
        allocator.lag = 3
