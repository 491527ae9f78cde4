"""Several gloo processes: equal to the bit on any number of ranks; an error, no hang, and a resumed job if one dies."""

import multiprocessing

import pytest

pytest.importorskip("torch")

from tests.stress.ranks import KINDS, Job, interrupted, same_digests, start

needs_fork = "forkserver" not in multiprocessing.get_all_start_methods()
pytestmark = pytest.mark.skipif(needs_fork, reason="processes are forked here")


@pytest.mark.parametrize(("kind", "world"), [("sampler", 2), pytest.param("conditioning", 4, marks=pytest.mark.slow)])
def test_equal_on_any_number_of_ranks(kind, world):
    """One rank is late at random; others report NaN, half a batch, or nothing."""
    report = same_digests([Job(kind, n, 120, every=20, late_rank=n - 1) for n in (1, world)])
    assert report["problems"] == []
    assert report["compared"] == 6 * (1 + world)


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_a_rank_that_is_lost(fault):
    """The others end with an error, though one of them waits for a rank that will never answer, and the job resumes."""
    job = Job("sampler", 2, 70, save_every=10, timeout=2.0, bad_rank=1, bad_round=35, fault=fault)
    report = interrupted(job, (2,))
    assert report["problems"] == []
    assert report["checkpoint"] == 30


@pytest.mark.parametrize("fault", ["diverged", pytest.param("another seed", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_ranks_that_come_apart(kind, fault, tmp_path):
    """One flipped bit, or a seed of its own: both ranks end with an error that names the odd one."""
    ends = start(Job(kind, 2, 100, bad_rank=1, bad_round=30, fault=fault), tmp_path)
    for end in ends:
        assert end["code"] == 1
        assert "RankError: ranks [1] of 2 had another state" in end["said"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_rounds(kind):
    cases = ((1, -1), (2, -1), (2, 1), (4, 2))
    report = same_digests([Job(kind, n, 10_000, every=100, late_rank=late) for n, late in cases])
    assert report["problems"] == []
    assert report["compared"] == 100 * 9


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("world", "fault"), [(2, "killed"), (4, "killed"), (4, "frozen")])
def test_a_job_that_lost_a_rank_goes_on_with_any_number(kind, world, fault):
    job = Job(kind, world, 120, save_every=20, timeout=10.0, bad_rank=world // 2, bad_round=75, fault=fault)
    report = interrupted(job, (world, 1, 2))
    assert report["problems"] == []
