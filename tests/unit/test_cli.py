"""The command line: what it makes is what the API makes, and what it cannot use is named."""

import json
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
    (line,) = said.err.splitlines()
    assert len(line) <= 1000
    return line


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
    from aria_sampling.cli.regions import _unit_noise

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
        (("partition", new, "--labels", archive), ("--labels", "archive.npz", "archive of the arrays 'a'. Try: ")),
        (("partition", new), ("expected --labels FILE or --embeddings FILE",)),
        (("partition", labels), ("is the file to write, got one to read: it is an .npy file, int64 [3]",)),
        (("inspect", labels), ("POOL", "it is an .npy file", "--labels FILE")),
        (("simulate", saved, "--covered", array(tmp_path, "j", [-1, 3])), ("--covered", "embeddings=")),
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


@pytest.mark.parametrize(
    "argv",
    [[], ["partition"], ["draw"], ["inspect"], ["partition", "p", "--seed", "x" * 9000], ["inspect", "x" * 9000]],
)
def test_bad_usage_is_one_line(argv, capsys):
    assert ends_with(capsys, *argv).startswith("aria-sampling")


def test_an_interrupted_command_says_so_in_one_line(saved, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("aria_sampling.cli.regions._describe", interrupt)
    with pytest.raises(SystemExit) as end:
        main(["inspect", str(saved)])
    assert end.value.code == 130
    assert capsys.readouterr().err == "aria-sampling: interrupted\n"


def test_a_command_has_no_traceback(tmp_path):
    code = "import sys; from aria_sampling.cli import main; main(sys.argv[1:])"
    (tmp_path / "captions.csv").write_text("caption\na cat\n", encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-c", code, "partition", str(tmp_path / "captions.csv")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (2, "", 1)
    assert "pandas.read_csv(" in ended.stderr


ROWS = [("a red cat", "cat"), ("a dog", "dog"), ("two cats, asleep", "cat")]


def file_of(tmp_path, kind):
    """A file of three labelled captions, in another format than .npy."""
    path, labels = tmp_path / f"captions.{kind}", [label for _, label in ROWS]
    if kind in ("csv", "tsv"):
        mark = "," if kind == "csv" else "\t"
        rows = "".join(f'"{caption}"{mark}{label}\n' for caption, label in ROWS)
        path.write_text(f"\ufeffcaption{mark}label\n{rows}", encoding="utf-8")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"text": c, "source": x}) + "\n" for c, x in ROWS), encoding="utf-8")
    elif kind == "txt":
        path.write_text("".join(f"{label}\n" for label in labels), encoding="utf-8")
    elif kind == "npz":
        np.savez(path, vectors=np.eye(3), labels=labels)
    elif kind == "pt":
        pytest.importorskip("torch").save(pytest.importorskip("torch").tensor([0, 1, 0]), path)
    elif kind == "parquet":
        pytest.importorskip("pyarrow")
        frame = pytest.importorskip("pandas").DataFrame(ROWS, columns=["caption", "COLUMN"])
        frame.to_parquet(path)
    else:
        for number, label in enumerate(labels):
            (path / label).mkdir(parents=True, exist_ok=True)
            (path / label / f"{number}.png").touch()
    return path


KINDS = {
    "csv": "a table of text with the columns 'caption', 'label'",
    "tsv": "a table of text with the columns 'caption', 'label'",
    "jsonl": "JSON Lines with the entries 'text', 'source'",
    "txt": "text",
    "npz": "an archive of the arrays 'vectors', 'labels'",
    "pt": "what torch.save wrote",
    "parquet": "a Parquet table",
    "folder": "a folder",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", ["partition", "inspect", "--labels"])
def test_a_file_of_another_kind_is_named_with_the_call_that_reads_it(kind, command, tmp_path, capsys, monkeypatch):
    """And that call makes the partition."""
    path = file_of(tmp_path, kind)
    argv = ["partition", tmp_path / "new", "--labels", path] if command == "--labels" else [command, path]
    said = ends_with(capsys, *argv)
    assert str(path) in said
    assert f"it is {KINDS[kind]}" in said
    assert "pickle" not in said
    if kind in ("csv", "tsv", "jsonl", "parquet"):
        pytest.importorskip("pandas")
    names = {}
    monkeypatch.chdir(tmp_path)
    exec(said.split("Try: ")[1], names)
    pool = names["pool"] if command == "--labels" else aria.Partition.load("pool.aria")
    assert pool.labels.tolist() == ([0, 0, 1] if kind == "folder" else [0, 1, 0])
    assert pool.names == (("0", "1") if kind == "pt" else ("cat", "dog"))


def test_embeddings_in_another_kind_of_file(tmp_path, capsys, monkeypatch):
    for kind in ("csv", "jsonl", "txt"):
        said = ends_with(capsys, "partition", tmp_path / "new", "--embeddings", file_of(tmp_path, kind), "--regions", 2)
        assert "text has to be embedded first: aria-sampling prompts import" in said
    said = ends_with(capsys, "partition", tmp_path / "new", "--embeddings", file_of(tmp_path, "npz"), "--regions", 2)
    monkeypatch.chdir(tmp_path)
    exec(said.split("Try: ")[1], {})
    main(["partition", "new", "--embeddings", "captions.npy", "--regions", "2"])
    assert aria.Partition.load("new").n_items == 3


def test_a_damaged_array_is_told_how(tmp_path, capsys):
    whole = (tmp_path / "whole.npy", np.arange(1000.0))
    np.save(*whole)
    written = whole[0].read_bytes()
    for length, words in ((60, "that is cut off"), (1000, "with 872 of 8000 bytes of data"), (0, "it is empty")):
        (tmp_path / "cut.npy").write_bytes(written[:length])
        said = ends_with(capsys, "partition", tmp_path / "new", "--labels", tmp_path / "cut.npy")
        assert words in said
    np.save(tmp_path / "objects.npy", np.array(["a", None], object))
    said = ends_with(capsys, "partition", tmp_path / "new", "--labels", tmp_path / "objects.npy")
    assert "an .npy file of Python objects; save text as numpy.array(labels, str)" in said
    assert "pickle" not in said


def test_text_is_labels(tmp_path, capsys):
    main(["partition", str(tmp_path / "pool"), "--labels", array(tmp_path, "t", ["b", "a", "b"])])
    assert aria.Partition.load(tmp_path / "pool").names == ("a", "b")


def test_a_pool_without_some_items(saved, capsys):
    pool = aria.Partition.load(saved).without([0, 1, 19])
    pool.save(saved)
    main(["inspect", str(saved)])
    said = capsys.readouterr().out
    assert "removed: 3 items, and 1 regions are empty" in said
    assert "sizes: 1 to 11," in said
    main(["simulate", str(saved), "--rounds", "3", "--draw", "20", "--noise", "0"])
    assert capsys.readouterr().out.splitlines()[-1].split()[0] == "0"


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
