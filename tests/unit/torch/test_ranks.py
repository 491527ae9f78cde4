"""Law, rank agreement: the number of ranks changes no bit of draws or estimates; ranks that differ are found."""

import re
from itertools import islice

import pytest
import torch

import aria_sampling as aria
from tests.unit.torch import jobs
from tests.unit.torch.common import BATCH, NUM_SAMPLES, expected, make
from tests.unit.torch.gang import Failure, Gang

WORLDS = [2, 4]


@pytest.fixture(scope="module")
def gang(tmp_path_factory):
    gang = Gang(4, tmp_path_factory.mktemp("gang"))
    yield gang
    gang.close()


@pytest.fixture(scope="module")
def gang_of_two(tmp_path_factory):
    gang = Gang(2, tmp_path_factory.mktemp("gang"))
    yield gang
    gang.close()


def together(results):
    """What the ranks saw, put together in their order; that all ended alike is checked."""
    for result in results:
        assert not isinstance(result, Failure), result.trace
    first = results[0]
    for result in results[1:]:
        assert (result["digest"], result["bits"]) == (first["digest"], first["bits"])
        assert result["state"] == first["state"]
    seen = [joined(parts) for parts in zip(*(result["seen"] for result in results), strict=True)]
    return {**first, "seen": seen}


def joined(parts):
    """Batches of the ranks as one: lists of rows, or tuples of such."""
    if isinstance(parts[0], tuple):
        return tuple(joined(entries) for entries in zip(*parts, strict=True))
    return [row for part in parts for row in part]


def one_process(job, *args, **settings):
    """The same job with no ranks at all."""
    return job(0, 1, None, *args, **settings)


def run(gang, world, job, *args):
    return together(gang.run(job, *args, world=world))


def stream(gang, world, **settings):
    return run(gang, world, Job(jobs.stream, settings))


class Job:
    """A job with keyword arguments, which can be pickled."""

    def __init__(self, job, settings):
        self.job, self.settings, self.__name__ = job, settings, job.__name__

    def __call__(self, *args):
        return self.job(*args, **self.settings)


# ------------------------------------------------------------------------------ world sizes


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("lag", [0, 1, 4])
def test_the_number_of_ranks_changes_nothing(gang, lag, world):
    """Over epochs whose last batch no number of ranks divides."""
    alone = one_process(jobs.stream, lag=lag)
    assert (alone["seen"], alone["digest"]) == expected(14, lag=lag)
    assert stream(gang, world, lag=lag) == alone


def test_workers_and_ranks_together_change_nothing(gang):
    assert stream(gang, 2, lag=4, workers=1) == one_process(jobs.stream, lag=4)


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("lag", [4, 5])
def test_no_number_of_workers_and_ranks_changes_anything(gang, lag, workers, world):
    assert stream(gang, world, lag=lag, workers=workers, batches=30) == one_process(jobs.stream, lag=lag, batches=30)


@pytest.mark.parametrize("report", sorted(set(jobs.REPORTS) - {"whole"}))
@pytest.mark.parametrize("world", WORLDS)
def test_however_each_rank_reports(gang, world, report):
    """In parts, in another order, without some rows, without all rows of a rank, or all of a rank's not finite."""
    for lag in (0, 2):
        alone = one_process(jobs.stream, lag=lag, report=report)
        assert stream(gang, world, lag=lag, report=report) == alone
        same = alone["digest"] == one_process(jobs.stream, lag=lag)["digest"]
        assert same == (report in ("in_parts", "backwards"))


def test_losses_that_are_not_finite_are_counted_once(gang):
    results = [stream(gang, 4, report="broken_blocks"), one_process(jobs.stream, report="broken_blocks")]
    batches = 2 * [BATCH // 4] * 5 + 2 * [2] + 2 * [BATCH // 4]
    assert [result["bits"][-1] for result in results] == [sum(batches)] * 2


def test_dataloader_on_the_default_group(gang):
    """With ``overlap``, so a lag of 1: the exchange of a round goes on beside the next step."""
    alone = one_process(jobs.default_loader, 0)
    assert run(gang, 4, jobs.default_loader, 0) == alone
    assert alone["seen"] == expected(12, lag=1)[0]


# ------------------------------------------------------------------------------ resuming


@pytest.mark.parametrize(("before", "after"), [(4, 2), (4, 1), (1, 4), (2, 4)])
@pytest.mark.parametrize("lag", [0, 3])
def test_a_run_resumes_on_another_number_of_ranks(gang, lag, before, after):
    """In the middle of the second epoch, each rank from its own copy of the state."""

    def on(world, **settings):
        if world == 1:
            return one_process(jobs.stream, lag=lag, **settings)
        return stream(gang, world, lag=lag, **settings)

    first = on(before, batches=9)
    second = on(after, batches=8, state=first["state"], skip=9)
    whole = one_process(jobs.stream, lag=lag, batches=17)
    assert first["seen"] + second["seen"] == whole["seen"]
    assert (second["digest"], second["state"]) == (whole["digest"], whole["state"])


# ------------------------------------------------------------------------------ ranks that come apart


def failures(gang, job, *args, world=4):
    """The message that every rank failed with, which is one and the same but for who says it."""
    results = gang.run(job, *args, world=world)
    assert all(isinstance(result, Failure) for result in results), results
    for rank, result in enumerate(results):
        if result.kind == "RankError":
            assert f"(this is rank {rank})" in result.text
    assert len({result.kind for result in results}) == 1
    assert len({re.sub(r"this is rank \d", "", result.text) for result in results}) == 1
    return results[0].kind, results[0].text


@pytest.mark.parametrize("odd", [0, 2])
def test_another_seed_is_found_at_once(gang, odd):
    kind, text = failures(gang, jobs.other_seed, odd)
    assert kind == "RankError"
    assert f"ranks [{odd}] of 4 had another state than the others after 0 rounds" in text
    assert "seed included" in text


@pytest.mark.parametrize(("check_every", "lag", "after"), [(1, 0, 4), (2, 0, 4), (5, 0, 5), (2, 2, 4)])
def test_another_state_is_found_by_the_next_digest(gang, check_every, lag, after):
    """One rank's estimates differ in the last bits after three rounds: no draw shows it, the digest does."""
    results = gang.run(jobs.other_state, 2, 3, check_every, lag)
    assert not any(isinstance(result, Failure) for result in results), results
    assert {number for number, _ in results} == {after + (2 * lag + 1 if lag else 0)}
    for rank, (_, text) in enumerate(results):
        assert f"ranks [2] of 4 had another state than the others after {after} rounds (this is rank {rank})" in text


def test_states_are_compared_as_often_as_was_asked(gang):
    """The counterpart: with ``check_every`` beyond the end nothing is compared, and nothing fails."""
    assert gang.run(jobs.other_state, 2, 3, 11, 0) == [(None, "")] * 4
    with pytest.raises(ValueError, match="check_every"):
        make().sampler(batch_size=1, num_samples=1, check_every=0)


def test_another_round_is_found_at_once(gang):
    kind, text = failures(gang, jobs.other_round, 3)
    assert kind == "RankError"
    assert "ranks [3] of 4 are not at round 0, as the others are" in text  # and so rank 3 says too
    assert issubclass(aria.RankError, RuntimeError)


GROUP = "give the sampler group=, the process group of the ranks with different data"


def test_the_same_rows_on_every_rank_are_refused(gang):
    """`num_replicas` forgotten: in loaders of one rank's rows, in those of all ranks' rows, and part by part."""
    quarter = BATCH // 4
    kind, text = failures(gang, jobs.not_dealt_out, BATCH, quarter)
    assert kind == "ArgumentError"
    assert (
        "4 ranks report. If each reports its rows once, several of them got the same rows: give the sampler num_r"
        in text
    )
    assert GROUP in text
    kind, text = failures(gang, jobs.not_dealt_out, BATCH, BATCH)
    assert kind == "ArgumentError"
    assert f"{BATCH} rows reported in a batch of {quarter} on this rank" in text
    assert f"batch_size={BATCH}, 4 ranks" in text
    assert GROUP in text
    kind, text = failures(gang, jobs.not_dealt_out, quarter, quarter)
    assert kind == "ArgumentError"
    assert f"{quarter} of the {BATCH} rows of round 0 were asked for" in text
    assert "on 4 ranks give the sampler num_replicas= and rank=" in text


def test_ranks_that_hold_one_sample_together(gang):
    """Data ranks are counted, not ranks: with ``group=`` it is the run on two, without it is refused."""
    kind, text = failures(gang, jobs.tensor_parallel, False)
    assert kind == "ArgumentError"
    assert "num_replicas=2, and its process group has 4 ranks" in text
    assert GROUP in text
    results = gang.run(jobs.tensor_parallel, True)
    assert not any(isinstance(result, Failure) for result in results), results
    assert results[0]["seen"] == results[1]["seen"] != results[2]["seen"] == results[3]["seen"]
    found = together([results[0], results[2]])
    assert (found["seen"], found["digest"]) == expected(8)


def test_attach_refuses_rows_that_are_not_the_ranks(gang):
    kind, text = failures(gang, Job(jobs.attached, {}))
    assert kind == "ArgumentError"
    assert "process group has 4 ranks, and its rows are not dealt out, and all would get the same" in text
    kind, text = failures(gang, Job(jobs.attached, {"num_replicas": 2}))
    assert "process group has 4 ranks, and its rows are dealt out to 2" in text
    assert GROUP.removeprefix("give the sampler ") in text
    assert gang.run(Job(jobs.attached, {"num_replicas": 4})) == [None] * 4


@pytest.mark.parametrize("framework", ["Fabric", "Ray"])
def test_a_framework_that_wraps_or_replaces_the_sampler_is_named(gang, framework):
    """On two ranks, before the first batch by attach(), and without it by the first batches."""
    pytest.importorskip("lightning")
    for result in gang.run(jobs.wrapped, framework, world=2):
        assert not isinstance(result, Failure), result.trace
        checked, bare = result
        assert "prepare_data_loader(loader, add_dist_sampler=False) (Ray)" in checked
        for said in (checked, bare):
            assert "use_distributed_sampler=False" in said
            assert "add_dist_sampler=False" in said


@pytest.mark.parametrize(
    ("report", "words"),
    [
        (jobs.repeated_mean, "a mean repeated for every row says nothing about regions"),
        (jobs.overflow, "most losses of region '2' were not finite"),
    ],
)
def test_losses_that_say_nothing_are_warned_of_once_on_every_rank(gang, report, words):
    for said, closed in gang.run(jobs.habit, report, world=2):
        assert closed == 6
        assert len(said) == 1
        assert words in said[0]


def test_rows_that_were_gathered_before_they_are_reported_are_named(gang):
    assert gang.run(jobs.habit, jobs.gathered, world=2) == [([], 6)] * 2
    for said, closed in gang.run(jobs.gathered_mixture, world=2):
        assert "8 samples reported in a batch of 4 on this rank, as many as all ranks have together" in said
        assert closed == 1


def test_sharded_losses_are_refused_by_name(gang_of_two):
    """On the mesh of all ranks; silently it cannot be mended, since that is collective."""
    pytest.importorskip("torch.distributed.tensor")
    assert gang_of_two.run(jobs.habit, jobs.sharded) == [([], 6)] * 2


def test_a_mixture_loads_the_state_of_its_own_rank_alone(gang):
    """Only rank 0 had saved, or there are other ranks today: the sources were others."""
    first, second = gang.run(jobs.states_of_mixtures, world=2)
    assert first[:2] == ["loaded", "loaded"]
    assert second[0] == "loaded"
    assert "rank=0 there, 1 here; each rank saves a state of its own, and loads that" in second[1]
    for said in (first, second):
        assert "num_replicas=2 there, 1 here; the shards of that many ranks are others than these" in said[2]
        assert "go on with the sources from their beginning. Try: mixture.allocator.load_state_dict" in said[2]


def test_rows_are_sharded_and_there_is_no_group():
    sampler = make().sampler(batch_size=BATCH, num_samples=NUM_SAMPLES, num_replicas=2)
    index = torch.tensor(list(islice(sampler, BATCH // 2)))
    for call in (lambda: sampler.observe(index, torch.ones(BATCH // 2)), sampler.step):
        with pytest.raises(
            ValueError, match=r"num_replicas=2, .* has 1 ranks: call torch.distributed.init_process_group"
        ):
            call()


def test_after_an_error_the_ranks_are_still_together(gang):
    """No rank was left in a collective by any of the tests above."""
    assert stream(gang, 4, batches=3) == one_process(jobs.stream, batches=3)
    assert NUM_SAMPLES % 4


# ------------------------------------------------------------------------------ the other faces


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("lag", [0, 1, 3])
def test_random_conditioning_on_ranks_with_unequal_batches(gang, lag, world):
    """Each rank has another number of rows in every batch, at times none; some rows have an item of their own."""
    alone = one_process(jobs.conditioning, lag, "all")
    assert run(gang, world, jobs.conditioning, lag, "all") == alone
    assert alone["digest"] != one_process(jobs.conditioning, lag, "none")["digest"]


@pytest.mark.parametrize("chance", [0.0, 0.05])
def test_random_conditioning_on_ranks_with_no_switched_rows(gang, chance):
    settings = {"lag": 1, "paired": "none", "chance": chance}
    alone = one_process(jobs.conditioning, **settings)
    assert run(gang, 4, Job(jobs.conditioning, settings)) == alone
    assert any(items for _, items, *_ in alone["seen"]) == (chance > 0)


@pytest.mark.parametrize("lag", [0, 2])
def test_random_conditioning_where_a_rank_has_no_loss_to_report(gang, lag):
    """It calls step() where the others observe: its rows count as rows without a loss, not as rows without error."""
    settings = {"lag": lag, "paired": "all", "silent": 4}
    alone = one_process(jobs.conditioning, **settings)
    assert run(gang, 4, Job(jobs.conditioning, settings)) == alone
    assert alone["digest"] != one_process(jobs.conditioning, lag, "all")["digest"]


def test_own_items_may_be_given_on_some_ranks_only(gang):
    """All ranks end alike, and not as if no row had one."""
    assert run(gang, 4, jobs.conditioning, 0, "first")["digest"] != one_process(jobs.conditioning, 0, "none")["digest"]


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("lag", [0, 2])
def test_a_mixture_on_ranks(gang, lag, world):
    """The same regions and estimates; each rank takes from its own sources, so these are where it is."""
    results = gang.run(jobs.mixture, lag, world=world)
    for result in results:
        assert not isinstance(result, Failure), result.trace
        del result["state"]
    alone = one_process(jobs.mixture, lag)
    found = together([{**result, "state": None} for result in results])
    assert (found["seen"], found["digest"], found["bits"]) == (alone["seen"], alone["digest"], alone["bits"])


def test_samples_of_a_mixture_without_credit_on_ranks(gang):
    results = gang.run(jobs.mixture, 1, True, world=2)
    alone = one_process(jobs.mixture, 1, True)
    for result in results:
        assert not isinstance(result, Failure), result.trace
        assert (result["digest"], result["bits"]) == (alone["digest"], alone["bits"])
    assert alone["digest"] != one_process(jobs.mixture, 1)["digest"]


@pytest.mark.parametrize(("dispatch", "words"), [(None, "dispatch_batches=False"), (False, "leave the loader out of")])
def test_a_mixture_prepared_by_accelerate_on_ranks(gang_of_two, dispatch, words):
    """With its defaults, and with what the first message says: each names the line to change, with and without len."""
    pytest.importorskip("accelerate")
    for result in gang_of_two.run(jobs.prepared_mixture, dispatch):
        assert not isinstance(result, Failure), result.trace
        assert len(result) == 2
        assert all(words in said for said in result)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_lag_for_is_the_smallest_that_works_under_accelerate_on_two_ranks(gang_of_two, workers):
    """accelerate deals the batches out; the rounds are those of both ranks together, and so are the bits."""
    pytest.importorskip("accelerate")
    needed = 2 * workers + 1
    results = gang_of_two.run(jobs.accelerated, workers, needed)
    assert [result["needed"] for result in results] == [needed] * 2
    found = together(results)
    assert (found["seen"], found["digest"]) == expected(16, lag=needed, num_samples=8 * BATCH)
    kind, text = failures(gang_of_two, jobs.accelerated, workers, needed - 1, world=2)
    assert kind == "FeedbackLagError"
    assert re.search(rf"lag={needed}\b", text)
