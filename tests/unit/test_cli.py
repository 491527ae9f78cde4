"""The command line: what it makes is what the API makes, and what it cannot use is named."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling.cli import main
from aria_sampling.partition import _lloyd


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

    monkeypatch.setattr("aria_sampling.cli.partitions._say", interrupt)
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


# ------------------------------------------------------------------------------------------ pools of any size


def said_in_json(capsys, *argv):
    main([str(word) for word in (*argv, "--json")])
    said = capsys.readouterr()
    assert said.err == ""
    (line,) = said.out.splitlines()
    return json.loads(line)


@pytest.fixture
def captioned(tmp_path):
    """Embeddings of six topics in three files of a folder, and a caption each in a text file."""
    rng = np.random.default_rng(0)
    topics = ["dog", "cat", "horse", "bird", "car", "boat"]
    labels = np.arange(300) % 6
    embeddings = (np.eye(6)[labels] + 0.05 * rng.normal(size=(300, 6))).astype(np.float16)
    folder = tmp_path / "shards"
    folder.mkdir()
    for number, part in zip((1, 2, 10), np.split(embeddings, (50, 220)), strict=True):
        np.save(folder / f"part-{number}.npy", part)
    texts = [f"A photo of a {topics[k]}, {rng.integers(10**6)}" for k in labels]
    (tmp_path / "captions.txt").write_bytes(("\ufeff" + "\r\n".join(texts)).encode())
    (folder / "index.json").write_text("{}")
    return folder, embeddings, texts, labels


def test_a_folder_of_shards_is_one_array(captioned, tmp_path, capsys):
    folder, embeddings, texts, _labels = captioned
    found = said_in_json(
        capsys, "partition", tmp_path / "pool", "--embeddings", folder, "--regions", 6, "--spherical", "--texts",
        tmp_path / "captions.txt",
    )  # fmt: skip
    pool = aria.Partition.load(tmp_path / "pool")
    wanted = aria.KMeansPartitioner(n_regions=6, spherical=True).fit(embeddings).named(texts, embeddings=embeddings)
    assert pool == wanted
    assert (pool.names, pool.captions, pool.terms) == (wanted.names, wanted.captions, wanted.terms)
    assert set(pool.names) == {"dog", "cat", "horse", "bird", "car", "boat"}
    assert found == {"pool": str(tmp_path / "pool"), **json.loads(json.dumps(wanted.describe().to_dict()))}
    more = said_in_json(
        capsys, "partition", tmp_path / "pool", "--embeddings", folder, "--regions", 2, "--max-size", 60
    )
    assert more["sizes"][-1] <= 60


def test_shards_are_rows_in_the_order_of_their_numbers(captioned):
    folder, embeddings, *_ = captioned
    shards = _shards(folder)
    assert shards.shape == (300, 6)
    assert shards.dtype == np.float16
    assert [path.name for path in shards.paths] == ["part-1.npy", "part-2.npy", "part-10.npy"]
    rng = np.random.default_rng(0)
    for _ in range(30):
        begin, end = sorted(rng.integers(0, 310, 2).tolist())
        assert np.array_equal(shards[begin:end], embeddings[begin:end])
        items = np.flatnonzero(rng.random(300) < rng.random())
        assert np.array_equal(shards[items], embeddings[items])
    np.save(folder / "part-11.npy", np.ones((2, 6)))
    assert _shards(folder).dtype == np.float64
    assert _shards(folder)[298:].tolist() == [*embeddings[298:].astype(float).tolist(), [1.0] * 6, [1.0] * 6]


def _shards(folder):
    from aria_sampling.partition._shards import Shards

    return Shards(folder)


def test_inspect_shows_sizes_names_captions_and_what_is_covered(captioned, tmp_path, capsys):
    _folder, _embeddings, texts, labels = captioned
    pool = aria.Partition.from_labels(labels).named(texts).without([0, 6])
    pool.save(tmp_path / "pool")
    covered = array(tmp_path, "covered", np.flatnonzero(labels < 2))
    main(["inspect", str(tmp_path / "pool"), "--covered", covered, "--html", str(tmp_path / "pool.html")])
    said = capsys.readouterr().out
    assert "covered: 2 regions have data, and 32.9% of the items are in these" in said
    assert "largest without data: horse (50), bird (50)" in said
    assert said.count("      A photo of a ") == 12
    assert "  horse (50 items, 16.8%)" in said
    page = (tmp_path / "pool.html").read_text(encoding="utf-8")
    assert "horse" in page
    assert pool.captions[5][0] in page
    found = said_in_json(capsys, "inspect", tmp_path / "pool", "--covered", covered, "--most", 1)
    assert (found["n_covered"], [r["name"] for r in found["uncovered"]]) == (2, ["horse"])
    assert found["uncovered"][0]["captions"] == list(pool.captions[2])


def test_captions_outside_of_the_pool_cover_regions(captioned, tmp_path, capsys):
    _folder, embeddings, *_ = captioned
    aria.KMeansPartitioner(n_regions=6).fit(embeddings).save(tmp_path / "pool")
    outside = array(tmp_path, "outside", np.eye(6)[[0, 0, 1]])
    found = said_in_json(capsys, "inspect", tmp_path / "pool", "--covered-embeddings", outside)
    assert found["n_covered"] == 2
    assert sorted(r["rows"] for r in found["largest"]) == [0, 0, 0, 0, 1, 2]


def test_assign_is_the_partition_s(captioned, tmp_path, capsys):
    folder, embeddings, *_ = captioned
    pool = aria.KMeansPartitioner(n_regions=6).fit(embeddings)
    pool.save(tmp_path / "pool")
    out = tmp_path / "regions.npy"
    found = said_in_json(capsys, "assign", tmp_path / "pool", folder, "--out", out)
    assert np.load(out).tolist() == pool.labels.tolist()
    assert found["n"] == 300
    assert {r["region"]: r["count"] for r in found["regions"]} == dict(enumerate(pool.sizes.tolist()))
    main(["assign", str(tmp_path / "pool"), array(tmp_path, "one", embeddings[:1])])
    assert capsys.readouterr().out.splitlines()[0] == "1 embeddings are in 1 of 6 regions"
    assert not [entry for entry in tmp_path.iterdir() if entry.name.startswith(".")]


COLUMN = ["cat", "dog", None, "cat"]


def table(tmp_path, kind):
    """Labels in a column of a table, with one that is missing, quotes and line ends inside of other fields."""
    path = tmp_path / f"labels.{kind}"
    texts = ['a "cat", red', "two\nlines", "é", "one\u2028line"]
    if kind in ("csv", "tsv"):
        with path.open("w", encoding="utf-8-sig", newline="") as file:
            rows = csv.writer(file, delimiter="," if kind == "csv" else "\t")
            rows.writerows(
                [("text", "kind"), *((text, label or "") for text, label in zip(texts, COLUMN, strict=True))]
            )
    elif kind == "jsonl":
        rows = [json.dumps({"text": text, "kind": label}) for text, label in zip(texts, COLUMN, strict=True)]
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    else:
        pa = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pa.table({"text": texts, "kind": COLUMN}), path)
    return path, texts


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_labels_and_captions_in_a_column(tmp_path, kind, capsys):
    path, texts = table(tmp_path, kind)
    argv = ["partition", tmp_path / "pool", "--labels", path, "--column", "kind"]
    assert "got 1 nulls" in ends_with(capsys, *argv)
    found = said_in_json(capsys, *argv, "--noise", "--texts", path, "--text-column", "text")
    wanted = aria.Partition.from_labels(COLUMN, noise="region").named(texts)
    pool = aria.Partition.load(tmp_path / "pool")
    assert (pool, pool.names, pool.captions) == (wanted, wanted.names, wanted.captions)
    assert found["n_regions"] == 3
    said = ends_with(capsys, *argv[:-1], "odd")
    assert "expected a column 'odd', got the columns ['text', 'kind']" in said
    said = ends_with(capsys, *argv, "--noise", "--texts", path, "--text-column", "odd")
    assert "column='odd': there is none of that name" in said
    assert "it has the columns ['text', 'kind']" in said


def test_what_cannot_be_used_of_pools_is_named(captioned, saved, tmp_path, capsys):
    _folder, embeddings, _texts, _labels = captioned
    new, whole, text = tmp_path / "new", array(tmp_path, "e", embeddings), tmp_path / "captions.txt"
    none, mixed, broken = tmp_path / "none", tmp_path / "mixed", tmp_path / "broken"
    for each in (none, mixed, broken):
        each.mkdir()
    for name, values in (("1", np.ones((3, 2))), ("2", np.ones((3, 4)))):
        np.save(mixed / f"{name}.npy", values)
    (broken / "1.npy").write_bytes((mixed / "1.npy").read_bytes()[:-8])
    ragged = tmp_path / "ragged.csv"
    ragged.write_text("a,b\n1,2\n3\n", encoding="utf-8")
    latin = tmp_path / "latin.csv"
    latin.write_bytes(b"a,b\ncaf\xe9,2\n")
    lines = tmp_path / "bad.jsonl"
    lines.write_text('{"a": 1}\n{"a": \n', encoding="utf-8")
    by_k = ("partition", new, "--embeddings", whole, "--regions", 3)
    for argv, words in (
        (("partition", new, "--embeddings", none, "--regions", 2), ("--embeddings", "none", "got none in it")),
        (("partition", new, "--embeddings", mixed, "--regions", 2), ("2.npy", "expected 2 columns", "got 4")),
        (("partition", new, "--embeddings", broken, "--regions", 2), ("1.npy", "an .npy file of numbers [n, d]")),
        ((*by_k, "--column", "a"), ("--column", "expected with --labels")),
        ((*by_k, "--centers", whole), ("--regions", "or --centers in its place")),
        ((*by_k[:4], "--centers", whole, "--spherical"), ("--spherical", "expected without --centers")),
        ((*by_k[:4], "--centers", text), ("--centers", "captions.txt")),
        (("partition", new, "--labels", whole, "--centers", whole), ("--centers",)),
        ((*by_k, "--noise"), ("--noise", "expected with --labels")),
        ((*by_k, "--text-column", "a"), ("--text-column", "--texts")),
        ((*by_k, "--max-size", 0), ("max_size=0",)),
        ((*by_k, "--device", "tpu9"), ("device='tpu9'",)),
        ((*by_k, "--texts", tmp_path / "absent.txt"), ("--texts", "there is no such file")),
        ((*by_k, "--texts", whole), ("--texts", "a file of captions", "it is an .npy file")),
        ((*by_k, "--texts", ragged), ("--texts", "it has the columns ['a', 'b']")),
        ((*by_k, "--texts", ragged, "--text-column", "a"), ("ragged.csv, line 3", "2 fields", "got 1")),
        (("partition", new, "--labels", ragged, "--column", "a"), ("ragged.csv", "2 fields in line 3, got 1")),
        (("partition", new, "--labels", latin, "--column", "a"), ("latin.csv", "UTF-8")),
        (("partition", new, "--labels", lines, "--column", "a"), ("bad.jsonl", "JSON in line 2")),
        (("partition", new, "--labels", lines, "--column", "b"), ("bad.jsonl (line 1)", "'b'", "['a']")),
        (("partition", new, "--labels", text, "--column", "a"), ("captions.txt", ".parquet with a column", "text")),
        (("partition", new, "--labels", tmp_path / "no.csv", "--column", "a"), ("no.csv", "there is no such file")),
        (("partition", new, "--labels", whole, "--max-size", 3), ("--max-size", "expected with --embeddings")),
        (("partition", new, "--labels", whole, "--spherical"), ("--spherical", "expected with --embeddings")),
        (
            ("partition", new, "--labels", array(tmp_path, "l", [0, 1]), "--texts", text),
            ("--texts", "2 captions", "300"),
        ),
        (("partition", text, *by_k[2:], "--texts", text), ("POOL", "the one to read")),
        (("inspect", saved, "--html", saved), ("--html", "the one to read")),
        (("inspect", saved, "--html", tmp_path / "no" / "page"), ("--html", "No such file")),
        (("inspect", saved, "--most", -1), ("most=-1",)),
        (("inspect", saved, "--covered-embeddings", whole), ("embeddings", "centers")),
        (("inspect", saved, "--covered", array(tmp_path, "c", [99])), ("--covered", "99")),
        (("assign", saved, whole), ("assign needs centers",)),
        (("assign", tmp_path / "absent", whole), ("POOL", "no such file")),
        (("assign", whole, whole), ("POOL", "an array")),
    ):
        said = ends_with(capsys, *argv)
        assert all(word in said for word in (f"{argv[0]}: ", *words)), said
    assert not new.exists()
    aria.KMeansPartitioner(n_regions=3).fit(embeddings).save(new)
    for argv, words in (
        (("assign", new, mixed / "1.npy"), ("embeddings: expected 6 columns, got 2",)),
        (("assign", new, whole, "--out", whole), ("--out", "the one to read")),
        (("assign", new, whole, "--out", tmp_path / "no" / "out.npy"), ("--out", "No such file")),
        (("assign", new, text), ("EMBEDDINGS", "text has to be embedded first")),
    ):
        said = ends_with(capsys, *argv)
        assert all(word in said for word in (f"{argv[0]}: ", *words)), said


def test_ctrl_c_while_items_are_assigned_keeps_the_centres(captioned, tmp_path, capsys, monkeypatch):
    folder, embeddings, *_ = captioned
    argv = ["partition", str(tmp_path / "pool"), "--embeddings", str(folder)]

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("aria_sampling.partition.kmeans.of_nearest", interrupted)
        with pytest.raises(SystemExit) as end:
            main([*argv, "--regions", "6"])
    assert end.value.code == 130
    assert not (tmp_path / "pool").exists()
    kept, last = capsys.readouterr().err.splitlines()
    assert last == "aria-sampling: interrupted"
    main([*argv, *kept.split("go on with ")[1].split(maxsplit=1)])
    assert aria.Partition.load(tmp_path / "pool") == aria.KMeansPartitioner(n_regions=6).fit(embeddings)


def test_ctrl_c_while_centres_are_fitted_writes_what_is_there(captioned, tmp_path, capsys, monkeypatch):
    folder, embeddings, *_ = captioned
    real, calls = _lloyd._means, []

    def interrupted(*arguments, **keywords):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments, **keywords)

    monkeypatch.setattr(_lloyd, "_means", interrupted)
    main(["partition", str(tmp_path / "pool"), "--embeddings", str(folder), "--regions", "20"])
    said = capsys.readouterr()
    assert said.err.startswith("aria-sampling: warning: k-means was interrupted after 3 of 11 steps")
    assert aria.Partition.load(tmp_path / "pool") == aria.KMeansPartitioner(n_regions=20, max_iter=2).fit(embeddings)
