"""The command line: what it makes is what the API makes, and what it cannot use is named."""

import subprocess
import sys

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling.cli import main


@pytest.fixture
def saved(tmp_path):
    """A pool of four named regions of 1, 2, 5 and 12 items, in a file."""
    path = tmp_path / "pool.aria"
    labels = np.repeat(np.arange(4), (1, 2, 5, 12))
    aria.Partition.from_labels(labels, names=["red", "green", "blue", "grey"]).save(path)
    return path


def array(tmp_path, name, values):
    path = tmp_path / f"{name}.npy"
    np.save(path, values)
    return str(path)


def ends_with(capsys, *argv):
    """What a refused command says."""
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in argv])
    assert end.value.code == 2
    said = capsys.readouterr()
    assert not said.out
    return said.err.splitlines()[-1]


def test_a_partition_by_k_means_is_the_partitioner_s(tmp_path, capsys):
    embeddings = np.random.default_rng(0).normal(size=(300, 5)).astype(np.float32)
    out = tmp_path / "pool.aria"
    main(["partition", str(out), "--embeddings", array(tmp_path, "e", embeddings), "--regions", "7", "--seed", "3"])
    pool = aria.Partition.load(out)
    assert pool == aria.KMeansPartitioner(n_regions=7, seed=3).fit(embeddings)
    said = capsys.readouterr().out
    assert f"300 items in 7 regions, fingerprint {pool.fingerprint[:12]}" in said
    assert "centres: 5 numbers each" in said


def test_a_partition_by_labels_is_from_labels(tmp_path, capsys):
    labels = [0, 2, 1, 1, 2, 2]
    main(["partition", str(tmp_path / "pool"), "--labels", array(tmp_path, "l", labels)])
    assert aria.Partition.load(tmp_path / "pool") == aria.Partition.from_labels(labels)
    assert "6 items in 3 regions" in capsys.readouterr().out


def test_inspect_says_what_is_in_a_partition(saved, capsys):
    main(["inspect", str(saved)])
    said = capsys.readouterr().out
    assert "20 items in 4 regions" in said
    assert "sizes: 1 to 12, quartiles 2, 4, 7" in said
    assert "largest: grey (12), blue (5), green (2), red (1)" in said
    assert "comes 5 times a pool-size draw" in said


def test_simulate_is_an_allocation(saved, tmp_path, capsys):
    """Its last line of numbers is the metrics of the same rounds by hand, where losses have no noise."""
    truth, covered = np.array([8.0, 1.0, 1.0, 2.0]), [0, 19, 19]
    said = "--rounds 9 --draw 30 --data-rows 6 --noise 0 --target 0.5 --exploration 0.1 --exponent 2 --seed 4"
    files = ["--discrepancy", array(tmp_path, "d", truth), "--covered", array(tmp_path, "c", covered)]
    main(["simulate", str(saved), *said.split(), *files])
    said = capsys.readouterr().out.splitlines()
    pool = aria.Partition.load(saved)
    allocator = aria.Allocator(
        pool,
        coverage=aria.Coverage(pool, items=covered),
        policy=aria.Proportional(2),
        exploration=0.1,
        target=0.5,
        seed=4,
    )
    drawn = np.zeros(4)
    for _ in range(9):
        draw = allocator.draw(30, data_rows=6)
        drawn += np.bincount(draw.regions, minlength=4)
        allocator.observe(draw.regions, truth[draw.regions])
        allocator.step()
    assert [line.split()[0] for line in said[1:6]] == ["1", "2", "4", "8", "9"]
    visited, discrepancy, effective, boost, passes = (float(word) for word in said[5].split()[1:])
    found = allocator.metrics()
    assert visited == 1
    assert discrepancy == pytest.approx(found["discrepancy"], rel=1e-3)
    assert effective == pytest.approx(found["effective_regions"], abs=0.05)
    assert boost == pytest.approx(found["top_boost"], rel=5e-3)
    assert passes == pytest.approx(found["passes"], rel=5e-3)
    shares = {line.split()[1]: float(line.split()[0]) for line in said[7:]}
    expected = drawn / drawn.sum() / (pool.sizes / 20)
    assert [shares[name] for name in pool.names] == pytest.approx(expected.tolist(), rel=5e-3)


def test_simulated_noise_has_the_mean_and_deviation_that_were_asked_for():
    """Of 10^6 factors: within 0.02 of mean 1, deviation 2: Chebyshev alone gives 1%, the normal limit 1e-23."""
    from aria_sampling.cli import _unit_noise

    factors = _unit_noise(np.random.default_rng(0), 2.0, 10**6)
    assert factors.mean() == pytest.approx(1, abs=0.02)
    assert factors.std() == pytest.approx(2, abs=0.1)
    assert _unit_noise(np.random.default_rng(0), 0.0, 3).tolist() == [1, 1, 1]


def test_simulate_draws_away_from_what_is_covered(saved, tmp_path, capsys):
    """From the first round, and the more the more rows with data there are to a drawn one; an empty file is none."""
    covered, none = array(tmp_path, "c", np.arange(8, 20)), array(tmp_path, "n", np.empty(0, int))
    shares = []
    for options in (["--covered", none], ["--covered", covered, "--data-rows", "1"], ["--covered", covered]):
        main(["simulate", str(saved), "--rounds", "9", "--draw", "20", "--noise", "0", *options])
        lines = [line.split() for line in capsys.readouterr().out.splitlines()[-4:]]
        shares.append(next(float(line[0]) for line in lines if line[1] == "grey"))
    assert shares[0] == pytest.approx(1, rel=0.01)
    assert 0.99 > shares[1] > shares[2]


def test_where_nothing_is_told_all_items_come_alike(saved, capsys):
    main(["simulate", str(saved), "--rounds", "5", "--draw", "20", "--noise", "0"])
    last = capsys.readouterr().out.splitlines()[-4:]
    assert all(float(line.split()[0]) == pytest.approx(1, rel=0.01) for line in last)


def test_a_report_from_files(saved, tmp_path, capsys):
    torch = pytest.importorskip("torch")
    allocator = aria.Allocator(aria.Partition.load(saved))
    history = aria.History(allocator, every=1)
    for _ in range(8):
        draw = allocator.draw(4)
        allocator.observe(draw.regions, 1.0 + draw.regions)
        allocator.step()
        history.record()
    torch.save(history.state_dict(), tmp_path / "history.pt")
    main(["report", str(tmp_path / "history.pt"), str(saved), str(tmp_path / "out.html")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "out.html")
    assert "grey" in (tmp_path / "out.html").read_text(encoding="utf-8")
    assert "HISTORY" in ends_with(capsys, "report", saved, saved, tmp_path / "out.html")


def test_what_cannot_be_used_is_named(saved, tmp_path, capsys):
    text = tmp_path / "words.npy"
    text.write_text("no array")
    new, numbers = tmp_path / "new", array(tmp_path, "n", np.ones((9, 2)))
    negative, labels = array(tmp_path, "m", [-1.0, 1, 1, 1]), array(tmp_path, "labels", [0, 1, 1])
    empty, archive = tmp_path / "empty.npy", tmp_path / "archive.npz"
    empty.touch()
    np.savez(archive, a=[0, 1])
    for argv, words in (
        (("inspect", tmp_path / "absent"), ("POOL", "absent")),
        (("inspect", text), ("POOL", "words.npy")),
        (("partition", new, "--labels", text), ("--labels", "words.npy", "expected an .npy file")),
        (("partition", new, "--labels", tmp_path / "absent.npy"), ("--labels", "absent.npy")),
        (("partition", new, "--labels", numbers), ("labels", "one-dimensional", "(9, 2)")),
        (("partition", new, "--embeddings", numbers), ("--regions",)),
        (("partition", new, "--labels", numbers, "--regions", "2"), ("--regions",)),
        (("partition", new, "--embeddings", numbers, "--regions", "10"), ("embeddings", "n_regions=10")),
        (("simulate", saved, "--rounds", "0"), ("--rounds", "0")),
        (("simulate", saved, "--noise", "-1"), ("--noise", "-1")),
        (("simulate", saved, "--target", "odd"), ("target", "odd")),
        (("simulate", saved, "--exploration", "0"), ("exploration", "0")),
        (("simulate", saved, "--noise", "1e9"), ("--noise", "1000000000")),
        (("simulate", saved, "--draw", "3000000000"), ("--draw", "3000000000")),
        (("simulate", saved, "--discrepancy", negative), ("--discrepancy", "from 0 to 1e100")),
        (("simulate", saved, "--discrepancy", ""), ("--discrepancy",)),
        (("simulate", saved, "--covered", ""), ("--covered",)),
        (("simulate", saved, "--covered", numbers), ("--covered", "one-dimensional", "(9, 2)")),
        (("simulate", saved, "--data-rows", "-1"), ("--data-rows", "-1")),
        (("simulate", saved, "--data-rows", "3000000000"), ("--data-rows", "3000000000")),
        (("partition", new, "--labels", ""), ("--labels",)),
        (("partition", new, "--labels", empty), ("--labels", "empty.npy")),
        (("partition", new, "--labels", archive), ("--labels", "archive.npz", "archive; save one array")),
        (("partition", labels, "--labels", labels), ("POOL", "the one to read")),
        (("partition", tmp_path / "no" / "pool", "--labels", labels), ("POOL", "folder that exists")),
        (("partition", tmp_path, "--labels", labels), ("POOL", "a file to write")),
        (("report", text, saved, new), ("HISTORY", "words.npy", "torch.save(history.state_dict(), ...)")),
        (("report", saved, saved, saved), ("OUT", "the one to read")),
        (("simulate", saved, "--covered", array(tmp_path, "i", [20])), ("--covered", "20")),
    ):
        said = ends_with(capsys, *argv)
        assert all(word in said for word in (f"{argv[0]}: ", *words)), said
    assert not new.exists()
    assert np.load(labels).tolist() == [0, 1, 1]


def test_a_warning_is_a_line(tmp_path, capsys):
    embeddings = array(tmp_path, "e", np.repeat(np.eye(2, dtype=np.float32), 5, axis=0))
    main(["partition", str(tmp_path / "pool"), "--embeddings", embeddings, "--regions", "3"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("aria-sampling: warning: 1 of 3 regions hold no item")


def test_a_reader_that_leaves_ends_it_quietly(saved):
    """As `| head -1` does; the table is longer than a pipe holds, so that the writer notices."""
    code = "import sys; from aria_sampling import cli; [cli.main(['inspect', sys.argv[1]]) for _ in range(400)]"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(saved)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
