"""Habits of training loops that would go wrong in silence: each is refused or warned of, in words that lead out."""

import itertools
import threading
import warnings

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset, default_collate

import aria_sampling as aria
from aria_sampling.torch import RegionMixture, WithIndex, dataloader
from tests.unit.torch.common import BATCH, ITEMS, NUM_SAMPLES, build, loss, make, train

K, N, ROWS = 5, 200, 20
GROUPS = torch.arange(N) % K
DIFFICULTY = torch.tensor([10.0, 1.0, 1.0, 1.0, 1.0])


def a_loader(dataset=None, **options):
    """A loader over 200 rows of five regions, of which one is hard."""
    allocator = aria.Allocator(aria.Partition.from_labels(GROUPS), seed=0)
    dataset = WithIndex(TensorDataset(DIFFICULTY[GROUPS])) if dataset is None else dataset
    return dataloader(dataset, allocator, batch_size=ROWS, **options)


def observe_all(loader, key="index", **entries):
    """Report every batch; `entries`: what else of a batch is reported, by argument."""
    for batch in loader:
        loader.sampler.observe(batch[key], batch["x"], **{name: batch[entry] for name, entry in entries.items()})


def warned(run):
    """What a run returns, and its warnings of this library."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answer = run()
    return answer, [str(warning.message) for warning in caught if issubclass(warning.category, aria.AriaWarning)]


# ------------------------------------------------------------------------------ losses that say nothing


@pytest.mark.parametrize("lag", [0, 2])
def test_a_mean_loss_repeated_for_every_row_is_warned_of_once(lag):
    sampler, loader = build(lag=lag)

    def run():
        for index in loader:
            sampler.observe(index, loss(index).mean().expand(len(index)))

    _, said = warned(run)
    assert len(said) == 1
    assert "a mean repeated for every row says nothing about regions" in said[0]
    assert "reduction='none'" in said[0]
    assert warned(run)[1] == []


def test_losses_of_their_own_are_not_warned_of():
    assert warned(lambda: train(*build()))[1] == []


def test_a_region_whose_losses_overflow_is_warned_of_once_by_name():
    """Pure fp16: squared errors beyond 65,504 are inf."""
    loader = a_loader()

    def run():
        for index, (x,) in loader:
            loader.sampler.observe(index, (x * 40).half().square() * 10)

    _, said = warned(run)
    assert len(said) == 1
    assert "most losses of region '0' were not finite" in said[0]
    assert "fp16 overflow" in said[0]
    assert warned(run)[1] == []


@pytest.mark.parametrize("back", [False, True])
def test_a_region_whose_losses_underflow_is_warned_of_once_by_name(back):
    """Pure fp16: squared errors below 3e-8 are 0, and stay 0 if they become float32 afterwards."""
    loader = a_loader()
    error = torch.tensor([0.005, 0.02, 0.02, 0.02, 0.0001])
    spread = torch.Generator().manual_seed(0)

    def run():
        for _ in range(20):
            for index, _ in loader:
                noisy = error[GROUPS[index]] * torch.randn(len(index), generator=spread)
                losses = noisy.half().square()
                loader.sampler.observe(index, losses.float() if back else losses)

    _, said = warned(run)
    assert len(said) == 1
    assert "most losses of region '4' are exactly 0" in said[0]
    assert "in float32 from the start" in said[0]
    assert warned(run)[1] == []


@pytest.mark.parametrize("flat", [False, True])
def test_losses_of_padded_tokens_are_told_apart_from_several_a_row(flat):
    """Texts of unequal lengths, equally hard a token: the mean over all would make short ones look easy."""
    lengths = torch.tensor([2, 4, 8, 16])[torch.arange(8) % 4]
    counted = torch.arange(16) < lengths[:, None]
    labels = torch.where(counted, 3, -100)
    logits = torch.zeros(8, 16, 5)
    tokens = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none", ignore_index=-100)
    losses = tokens if flat else tokens.reshape(8, 16)
    sampler = make().sampler(batch_size=8, num_samples=80)
    index = next(iter(DataLoader(range(ITEMS), batch_size=8, sampler=sampler)))
    with pytest.raises(ValueError, match=r"exactly 0, as those of padding are") as caught:
        sampler.observe(index, losses)
    assert ".mean(" not in caught.value.remedy
    names = {"losses": losses, "counted": counted}
    exec(caught.value.remedy, names)
    assert names["losses"].tolist() == pytest.approx([np.log(5)] * 8)
    sampler.observe(index, names["losses"])
    index = next(iter(DataLoader(range(ITEMS), batch_size=8, sampler=sampler)))
    with pytest.raises(ValueError, match=r"several losses a row report their mean\. If some are of padding"):
        sampler.observe(index, losses + 1)


def test_mixed_rows_are_credited_label_by_label():
    """What the how-to shows for mixup: each label's part of the loss goes to the row that the label is of."""
    means = {}
    for apart in (True, False):
        loader, rng = a_loader(), np.random.default_rng(0)
        for _ in range(8):
            for index, (x,) in loader:
                lam, other = float(rng.beta(1, 1)), torch.as_tensor(rng.permutation(len(index)))
                own, theirs = x, x[other]
                parts = lam * own
                parts[other] += (1 - lam) * theirs
                mixed = lam * own + (1 - lam) * theirs
                assert float(parts.sum()) == pytest.approx(float(mixed.sum()))
                loader.sampler.observe(index, parts if apart else mixed)
        means[apart] = loader.sampler.allocator.estimate().mean
    assert means[True] == pytest.approx(DIFFICULTY.numpy())
    assert means[False][0] < 8
    assert (means[False][1:] > 1.5).all()


def test_a_selection_by_the_loss_would_shift_the_estimates():
    """What the how-to says: report all losses, before the hardest half is chosen or the largest are filtered out."""
    truth, means = 1.0, {}
    for kept in (slice(None), slice(0, ROWS // 2), slice(ROWS // 4, None)):
        loader = a_loader()
        rng = torch.Generator().manual_seed(0)
        for _ in range(8):
            for index, _ in loader:
                losses = torch.rand(len(index), generator=rng) * 2 * truth
                rows = losses.argsort(descending=True)[kept]
                loader.sampler.observe(index[rows], losses[rows])
        means[kept.start, kept.stop] = loader.sampler.allocator.estimate().mean
    everything, hardest, filtered = means.values()
    assert abs(everything - truth).max() < 0.2
    assert (hardest > 1.3).all()
    assert (filtered < 0.9).all()


# ------------------------------------------------------------------------------ samples that cannot be read


class Images(Dataset):
    """Every fourth file of region 0 is broken, and `broken` says what comes in its place."""

    def __init__(self, broken):
        self.broken = broken

    def __len__(self):
        return N

    def __getitem__(self, index):
        if index % (4 * K) == 0:
            return self.broken(self, index)
        return {"x": DIFFICULTY[GROUPS[index]], "group": int(GROUPS[index]), "read": True, "own": index}


def none(images, index):
    return None


def the_next(images, index):
    return images[index + 1]


def marked(images, index):
    return {**images[index + 1], "read": False}


def without_none(samples):
    return default_collate([sample for sample in samples if sample is not None])


def test_samples_that_are_none_can_be_left_out():
    loader = a_loader(WithIndex(Images(none)), collate_fn=without_none)
    observe_all(loader, regions="group")
    assert loader.sampler.allocator.round == N // ROWS
    assert loader.sampler.allocator.estimate().mean.tolist() == DIFFICULTY.tolist()
    assert WithIndex(Several([None, "b"])).__getitems__([0, 1]) == [None, (1, "b")]


class Several(list):
    def __getitems__(self, indices):
        return [self[index] for index in indices]


def test_samples_of_a_stream_that_are_none_can_be_left_out():
    mixture = RegionMixture({"a": [1.0, None, 2.0], "b": [None, 3.0]}, batch_size=4, num_samples=24)
    n = 0
    for batch in DataLoader(mixture, batch_size=4, collate_fn=lambda samples: [s for s in samples if s is not None]):
        mixture.observe([region for region, _ in batch], [float(x) for _, x in batch])
        n += len(batch)
    assert mixture.allocator.round == 6
    assert 0 < n < 24


def test_another_sample_in_the_place_of_a_broken_one_is_named():
    """By the index that it really has, and by its region; both ways that the words name go through."""
    with pytest.raises(ValueError, match=r"another sample where one cannot be read, let it return None there"):
        observe_all(a_loader(Images(the_next)), key="own")
    with pytest.raises(ValueError, match=r"another sample where one cannot be read: let it return None, and leave"):
        observe_all(a_loader(WithIndex(Images(the_next))), regions="group")
    loader = a_loader(WithIndex(Images(marked)))
    observe_all(loader, credit="read")
    assert loader.sampler.allocator.estimate().mean.tolist() == DIFFICULTY.tolist()


# ------------------------------------------------------------------------------ numbers of samples


def test_an_index_that_is_there_already_can_stay():
    rows = [{"x": float(DIFFICULTY[group]), "index": 7 * row} for row, group in enumerate(GROUPS)]
    with pytest.raises(ValueError, match=r"entry 'index' already, .* leave WithIndex out") as caught:
        next(iter(a_loader(WithIndex(rows))))
    assert caught.value.remedy == "dataset = WithIndex(dataset, key='row')"
    loader = a_loader(WithIndex(rows, key="row"))
    for batch in loader:
        assert (batch["index"] == 7 * batch["row"]).all()
        loader.sampler.observe(batch["row"], batch["x"])
    assert loader.sampler.allocator.round == N // ROWS
    with pytest.raises(ValueError, match="key=3: expected the name of an entry"):
        WithIndex(rows, key=3)


def test_parts_that_are_numbered_each_from_0_are_refused():
    first, second = (WithIndex(TensorDataset(x)) for x in torch.arange(N).chunk(2))
    whole = WithIndex(TensorDataset(torch.arange(2 * N)))
    for parts in (
        ConcatDataset([first, second]),
        ConcatDataset([TensorDataset(torch.arange(N // 2)), ConcatDataset([second])]),
        Subset(whole, range(1, 2 * N, 2)),
    ):
        with pytest.raises(ValueError, match=r"WithIndex is around parts of a \w+, .* Wrap the whole, not its parts"):
            a_loader(parts)
    for right in (
        WithIndex(ConcatDataset([first.dataset, second.dataset])),
        WithIndex(Subset(whole.dataset, range(1, 2 * N, 2))),
    ):
        index, _ = next(iter(a_loader(right)))
        assert len(index) == ROWS


# ------------------------------------------------------------------------------ saving and resuming


def test_a_state_saved_before_its_batch_was_observed_is_warned_of_once():
    """As in the report: the checkpoint is written where the optimizer steps, and observe() stands below."""
    sampler, loader = build()

    def run(first):
        states = []
        for index in loader:
            if first == "save":
                states.append(sampler.state_dict())
            sampler.observe(index, loss(index))
            if first == "observe":
                states.append(sampler.state_dict())
        return states

    assert warned(lambda: run("observe"))[1] == []
    _, said = warned(lambda: run("save"))
    assert len(said) == 1
    assert "state of before round 6, whose batch the loader has handed out" in said[0]
    assert "Call observe(), then save" in said[0]


def test_where_a_loader_draws_ahead_a_state_is_saved_without_a_word():
    """It cannot be told apart there from batches that wait in the workers."""
    sampler, loader = build(lag=2, workers=1)
    rows = iter(loader)
    next(rows)
    assert warned(sampler.state_dict)[1] == []
    sampler, _ = build()
    assert next(iter(sampler)) is not None  # one row of the batch: no loader hands out that
    assert warned(sampler.state_dict)[1] == []


def resumed():
    """A sampler whose state was loaded after four of ten batches, and its loader."""
    loader = a_loader()
    for index, (x,) in itertools.islice(loader, 4):
        loader.sampler.observe(index, x)
    state = loader.sampler.state_dict()
    loader = a_loader()
    loader.sampler.load_state_dict(state)
    return loader


def test_a_loop_that_skips_what_the_state_has_skipped_is_told_so():

    def loop(loader, skip):
        for step, (index, (x,)) in enumerate(loader):
            if step < 4:
                skip(loader.sampler)
                continue
            loader.sampler.observe(index, x)

    with pytest.raises(aria.FeedbackLagError, match=r"A state was loaded in .* remove the lines that skip batches"):
        loop(resumed(), lambda sampler: None)
    _, said = warned(lambda: loop(resumed(), lambda sampler: sampler.step()))  # which goes through
    assert len(said) == 1
    assert "the first 2 batches after loading a state were closed without a loss" in said[0]
    assert "remove the lines that skip batches" in said[0]


def test_a_loop_that_skips_ahead_under_workers_is_told_so():
    sampler, rows = build(lag=3)
    train(sampler, rows, 2)
    state, (sampler, rows) = sampler.state_dict(), build(lag=3)
    sampler.load_state_dict(state)
    batches = list(itertools.islice(rows, 3))
    with pytest.raises(ValueError, match=r"whose turn comes later.* remove the lines that skip batches"):
        sampler.observe(batches[2], loss(batches[2]))


def test_a_loop_that_goes_on_rightly_hears_nothing():
    def run():
        loader = resumed()
        for number, (index, (x,)) in enumerate(loader):
            if number == 0:
                loader.sampler.step()  # a skipped step
            else:
                loader.sampler.observe(index, x)
        for number, (index, (x,)) in enumerate(itertools.islice(loader, 4)):
            loader.sampler.step() if number % 2 else loader.sampler.observe(index, x)
        return loader.sampler.allocator.round

    assert warned(run) == (14, [])


# ------------------------------------------------------------------------------ loaders


def test_a_bare_loader_that_drops_the_last_batch_is_refused_at_its_first():
    sampler = make().sampler(batch_size=BATCH, num_samples=NUM_SAMPLES)
    loader = DataLoader(range(ITEMS), batch_size=BATCH, sampler=sampler, drop_last=True)
    with pytest.raises(ValueError, match=r"drop_last=True, and its sampler does not know: the last 7 rows of an epoch"):
        next(iter(loader))
    even = make().sampler(batch_size=BATCH, num_samples=3 * BATCH)
    loader = DataLoader(range(ITEMS), batch_size=BATCH, sampler=even, drop_last=True)
    assert [len(train(even, loader)) for _ in range(3)] == [3, 3, 3]


def test_a_loop_that_drops_the_last_batch_by_itself_has_at_most_one_empty_epoch():
    """A batch sampler of one's own, of which nobody can know."""
    sampler = make().sampler(batch_size=BATCH, num_samples=NUM_SAMPLES)

    class Full:
        def __iter__(self):
            rows = iter(sampler)
            while len(batch := list(itertools.islice(rows, BATCH))) == BATCH:
                yield batch

        def __len__(self):
            return NUM_SAMPLES // BATCH

    loader = DataLoader(range(ITEMS), batch_sampler=Full())
    batches, said = warned(lambda: [len(train(sampler, loader)) for _ in range(6)])
    assert batches == [5, 0, 5, 5, 5, 5]
    assert len(said) == 1
    assert "its last batch, which is smaller, was not observed. It is left out from now on" in said[0]


def test_a_cycle_of_the_first_epoch_is_named():

    def loop(loader, face):
        for index, _ in itertools.cycle(loader):
            face.observe(index, 1.0 + index)

    loader = a_loader()
    with pytest.raises(RuntimeError, match=r"itertools.cycle\(loader\) would play those batches again.*`while True:`"):
        loop(loader, loader.sampler)
    mixture = RegionMixture({"a": range(9), "b": range(9)}, batch_size=4, num_samples=12)
    with pytest.raises(RuntimeError, match=r"itertools.cycle\(loader\) would play those batches again"):
        loop(DataLoader(mixture, batch_size=4), mixture)
    mixture = RegionMixture({"a": range(9), "b": range(9)}, batch_size=4, num_samples=12)
    with pytest.raises(RuntimeError, match=r"closes it$"):
        mixture.step()


def test_a_look_and_an_evaluation_in_the_middle_are_named():

    def loop(loader, look):
        for index, (x,) in loader:
            loader.sampler.observe(index, x)
            look(loader)

    look = r"To look at a batch, or to evaluate, make a loader of its own, without this "
    with pytest.raises(RuntimeError, match=look):
        loop(a_loader(), lambda loader: next(iter(loader)))
    with pytest.raises(aria.FeedbackLagError, match=rf"left in the middle, and another began\. {look}"):
        loop(a_loader(), list)
    mixture = RegionMixture({"a": range(9), "b": range(9)}, batch_size=4)
    rows = iter(mixture)
    next(rows)
    next(iter(mixture))
    with pytest.raises(RuntimeError, match=f"{look}mixture"):
        list(itertools.islice(rows, 4))


def test_a_run_without_the_callback_is_named():
    """Lightning's lr_find trains some steps without the user's callbacks."""
    with pytest.raises(aria.FeedbackLagError, match=r"also in a run without the callback \(Lightning's lr_find"):
        for _ in a_loader():
            pass


@pytest.mark.parametrize("lag", [0, 2])
def test_a_loader_iterated_in_another_thread_is_refused(lag):
    """The thread that draws first owns the allocator: with a second one, rounds would come apart."""
    sampler, loader = build(lag=lag)
    batches = []
    thread = threading.Thread(target=lambda: batches.append(next(iter(loader))))
    thread.start()
    thread.join()
    for report in (lambda: sampler.observe(batches[0], loss(batches[0])), sampler.step):
        with pytest.raises(aria.UsageError, match="in another thread than the one that drew first"):
            report()
    assert sampler.allocator.round == 0
