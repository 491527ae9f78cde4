"""Names of regions: terms that tell regions apart, captions that are typical, in any script, the same every time."""

import math
import string
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import aria_sampling as aria
from aria_sampling.partition import _naming
from aria_sampling.partition._words import words


def captions(labels, *, seed=0):
    """A caption an item: words that are everywhere, one of the region's own, and one by chance."""
    rng = np.random.default_rng(seed)
    own = ["dog", "cat", "horse", "bird", "car", "boat"]
    other = ["red", "blue", "small", "old"]
    return [f"A photo of the {own[k]} that is {other[rng.integers(4)]}, {rng.integers(10**6)}" for k in labels]


LABELS = np.arange(300) % 6
TEXTS = captions(LABELS)


class Store:
    """Captions of which one can only ask for some, by ascending numbers; what a store of prompts is."""

    def __init__(self, texts):
        self._texts, self.asked, self.most = texts, Counter(), 0

    def __len__(self):
        return len(self._texts)

    def take(self, items):
        assert items.dtype == np.int64
        assert (np.diff(items) > 0).all()
        self.most = max(self.most, len(items))
        self.asked.update(items.tolist())
        return [self._texts[item] for item in items]


# ---------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("A dog's photo, t-shirt 42 blue_eyes", ["dog's", "photo", "t-shirt", "blue", "eyes"]),
        ("हिन्दी में लिखा हुआ", ["हिन्दी", "में", "लिखा", "हुआ"]),
        ("犬の写真 beautiful", ["犬の", "の写", "写真", "beautiful"]),
        ("犬 犬", ["犬"]),
        ("ภาพสุนัข", ["ภา", "าพ", "พสุ", "สุนั", "นัข"]),
        ("Straße ＦＵＬＬ ﬁne", ["straße", "full", "fine"]),
        ("Собака на пляже", ["собака", "на", "пляже"]),
        ("한국어 개 사진", ["한국어", "개", "사진"]),
        ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        ("می‌خواهم", ["می\u200cخواهم"]),
        ("e\u0301tude É l’été", ["étude", "l’été"]),
        ("DVDを見る", ["dvd", "を見", "見る"]),
        ("😀 !!! … 7 x", []),
        ("", []),
    ],
)
def test_words(caption, found):
    assert list(words(caption)) == found


@given(st.text())
def test_any_text_has_words_or_none(caption):
    found = list(words(caption))
    assert len(set(found)) == len(found)
    assert all(word and not word.isspace() and not word.isdigit() for word in found)
    assert list(words(caption)) == found


@given(st.text(string.ascii_letters + " '-7_"))
def test_ascii_has_the_words_that_it_has_beside_other_scripts(caption):
    """The fast way for ASCII and the way for all scripts are one."""
    assert [*words(caption), "été"] == list(words(caption + " été")) or "été" in words(caption)


# ---------------------------------------------------------------------------------------------- terms


def test_regions_are_called_by_what_is_theirs():
    pool = aria.Partition.from_labels(LABELS).named(TEXTS)
    assert pool.names == ("dog", "cat", "horse", "bird", "car", "boat")
    assert list(pool.terms) == [(name,) for name in pool.names]
    for name, typical in zip(pool.names, pool.captions, strict=True):
        assert len(typical) == 3
        assert all(f" {name} " in caption for caption in typical)
    assert pool == aria.Partition.from_labels(LABELS)  # the identity of a pool is its labels
    assert pool.fingerprint == aria.Partition.from_labels(LABELS).fingerprint


def test_the_weight_of_a_term_is_that_of_the_paper():
    """c-TF-IDF by hand: tf log(1 + A / f), words counted once a caption."""
    texts = ["aa bb", "aa cc cc", "dd bb", "dd ee", "dd ff gg"] * 4
    labels = [0, 0, 1, 1, 1] * 4
    average = (16 + 28) / 2
    of = Counter(word for text in texts for word in set(text.split()))
    tf = [Counter(w for t, k in zip(texts, labels, strict=True) if k == own for w in set(t.split())) for own in (0, 1)]
    expected = [
        sorted(tf[k], key=lambda w: (-tf[k][w] / tf[k].total() * math.log(1 + average / of[w]), -tf[k][w], w))
        for k in (0, 1)
    ]
    pool = aria.Partition.from_labels(labels).named(texts)
    for k in (0, 1):
        kept = [word for word in expected[k] if word in pool.terms[k]]
        assert list(pool.terms[k]) == kept
        assert kept[0] == ("aa", "dd")[k]
    assert pool.terms[0] == ("aa", "cc")
    assert "bb" not in pool.terms[1]


def test_a_word_that_is_everywhere_is_no_term():
    """In any language: there is no list of such words."""
    texts = [caption.replace("photo", "foto").replace("of the", "van de") for caption in TEXTS]
    pool = aria.Partition.from_labels(LABELS).named(texts)
    assert not {"foto", "van", "de", "that", "is"} & {term for terms in pool.terms for term in terms}


def test_regions_by_chance_have_no_terms():
    pool = aria.Partition.from_labels(np.random.default_rng(0).integers(0, 3, 3000)).named(
        captions(np.random.default_rng(1).integers(0, 6, 3000))
    )
    assert sum(len(terms) for terms in pool.terms) <= 2
    assert aria.Partition.from_labels([0, 0, 0]).named(["aa", "aa bb", "cc"]).names == ("0",)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.text("abc 犬é", max_size=9)), min_size=1, max_size=40))
def test_names_are_the_same_every_time_and_differ(items):
    labels = np.unique([label for label, _ in items], return_inverse=True)[1]
    texts = [text for _, text in items]
    pool = aria.Partition.from_labels(labels)
    one, two = pool.named(texts), pool.named(Store(texts))
    assert one.names == two.names
    assert one.terms == two.terms
    assert one.captions == two.captions
    assert len(set(one.names)) == pool.n_regions
    for region in range(pool.n_regions):
        own = {" ".join(texts[i].split()) for i in pool.items_of(region)}
        assert set(one.captions[region]) <= own
        assert len({caption.casefold() for caption in one.captions[region]}) == len(one.captions[region])
        assert len(one.captions[region]) == min(3, len({text.casefold() for text in own if text}))
        assert set(one.terms[region]) <= {word for text in own for word in words(text)}


def test_names_that_would_be_alike_get_more_terms_and_then_a_number():
    assert _naming.found_names(["0", "1", "2"], [["a", "b", "c", "d"], ["a", "b", "c", "e"], ["z"]], rename=False) == [
        "a, b, c, d", "a, b, c, e", "z",
    ]  # fmt: skip
    assert _naming.found_names(["0", "1", "2"], [["a"], ["a"], []], rename=False) == ["a (#0)", "a (#1)", "2"]
    assert _naming.found_names(["x", "1"], [["a"], ["a"]], rename=False) == ["x", "a"]
    assert _naming.found_names(["x", "1"], [["a"], ["b"]], rename=True) == ["a", "b"]
    assert _naming.found_names(["a", "1"], [[], ["a"]], rename=False) == ["a", "a (#1)"]


def test_names_of_labels_stay_unless_they_are_to_go():
    pool = aria.Partition.from_labels([f"label {label}" for label in LABELS])
    assert pool.named(TEXTS).names == pool.names
    assert pool.named(TEXTS).terms[1] == ("cat",)
    assert pool.named(TEXTS, rename=True).names[:2] == ("dog", "cat")


# ------------------------------------------------------------------------------------------- captions


def test_typical_captions_are_the_nearest_to_the_centre():
    rng = np.random.default_rng(0)
    embeddings = np.eye(6)[LABELS] + 0.1 * rng.normal(size=(300, 6))
    texts = [f"{text} {i}" for i, text in enumerate(TEXTS)]
    for spherical in (False, True):
        pool = aria.KMeansPartitioner(n_regions=6, spherical=spherical).fit(embeddings)
        named = pool.named(texts, embeddings=embeddings)
        for region in range(6):
            items = pool.items_of(region)
            x = embeddings[items] / (np.linalg.norm(embeddings[items], axis=1)[:, None] if spherical else 1)
            nearest = items[np.argsort(np.linalg.norm(x - pool.centers[region], axis=1))[:3]]
            assert list(named.captions[region]) == [texts[i] for i in nearest]


def test_without_centres_typical_captions_have_most_of_the_terms():
    texts = [
        "dog beach",
        "dog",
        "dog and much else that nobody wants",
        "dog beach sun",
        "cat",
        "cat sofa",
        "cat sofa",
        "sofa",
    ]
    pool = aria.Partition.from_labels([0] * 4 + [1] * 4).named(texts)
    assert "dog and much else that nobody wants" not in pool.captions[0]
    assert sorted(pool.captions[1]) == ["cat", "cat sofa", "sofa"]


def test_long_captions_are_cut_and_empty_ones_left_out():
    pool = aria.Partition.from_labels([0, 0, 0, 0]).named(["x" * 1000, "", None, "  one \n two  "])
    assert sorted(map(len, pool.captions[0])) == [7, 300]
    assert "one two" in pool.captions[0]


def test_no_more_captions_are_read_than_it_takes(monkeypatch):
    monkeypatch.setattr(_naming, "_MOST", 9)
    monkeypatch.setattr(_naming, "_FEWEST", 4)
    monkeypatch.setattr(_naming, "_AT_A_TIME", 20)
    store = Store(TEXTS)
    pool = aria.Partition.from_labels(LABELS).named(store)
    assert len(store.asked) == 6 * 9
    assert store.most <= 36  # a batch ends with the region that fills it
    assert pool.names[0] == "dog"
    monkeypatch.setattr(_naming, "_IN_ALL", 12)
    store = Store(TEXTS)
    aria.Partition.from_labels(LABELS).named(store)
    assert len(store.asked) == 6 * 4


@pytest.mark.parametrize("kind", ["list", "tuple", "object array", "array", "pandas", "polars", "pyarrow"])
def test_captions_in_all_that_people_have_them_in(kind):
    if kind in ("pandas", "polars"):
        texts = pytest.importorskip(kind).Series(TEXTS)
    elif kind == "pyarrow":
        texts = pytest.importorskip("pyarrow").array(TEXTS)
    else:
        make = {"list": list, "tuple": tuple, "object array": lambda x: np.array(x, object), "array": np.array}
        texts = make[kind](TEXTS)
    assert (
        aria.Partition.from_labels(LABELS).named(texts).captions
        == aria.Partition.from_labels(LABELS).named(TEXTS).captions
    )


def test_removed_items_are_not_read():
    store = Store(TEXTS)
    pool = aria.Partition.from_labels(LABELS).without(np.flatnonzero(LABELS == 2)).named(store)
    assert not {i for i in store.asked if LABELS[i] == 2}
    assert pool.names[2] == "2"
    assert pool.captions[2] == ()
    assert pool.without([0]).captions == pool.captions


@pytest.mark.parametrize(
    ("texts", "words_"),
    [
        ("caption", "got str 'caption'"),
        (None, "got NoneType None"),
        (TEXTS[:-1], "got 299"),
        (dict(enumerate(TEXTS)), "got dict"),
        ([*TEXTS[:-1], 7], "expected text, got int 7 for item 299"),
        ([*TEXTS[:-1], ["a"]], r"expected text, got list \['a'\] for item 299"),
    ],
)
def test_bad_texts(texts, words_):
    with pytest.raises(ValueError, match=f"^texts: (expected .*)?{words_}"):
        aria.Partition.from_labels(LABELS).named(texts)


def test_a_store_that_returns_too_few():
    store = Store(TEXTS)
    store.take = lambda items: ["x"]
    with pytest.raises(ValueError, match=r"^texts: expected take\(\) to return 300 captions, got 1"):
        aria.Partition.from_labels(LABELS).named(store)


def test_embeddings_that_do_not_fit():
    pool = aria.KMeansPartitioner(n_regions=2).fit(np.eye(4))
    with pytest.raises(ValueError, match="embeddings: expected 4 rows, one an item, got 3"):
        pool.named(["a"] * 4, embeddings=np.eye(4)[:3])
    with pytest.raises(ValueError, match="embeddings: expected 4 columns, got 3"):
        pool.named(["a"] * 4, embeddings=np.eye(3))
    with pytest.raises(ValueError, match=r"embeddings: expected a partition with centers.*Try: pool = pool\.named"):
        aria.Partition.from_labels(LABELS).named(TEXTS, embeddings=np.eye(300))


# ------------------------------------------------------------------------------------------- in a file


@given(st.lists(st.lists(st.text(st.characters(codec=None)), max_size=4), min_size=1, max_size=9), st.booleans())
def test_texts_come_back_from_a_file(tmp_path_factory, texts, mmap):
    """Halves of characters, too."""
    path = tmp_path_factory.mktemp("pool") / "pool.aria"
    pool = aria.Partition.from_labels(np.arange(len(texts)), centers=np.zeros((len(texts), 2)))
    some = _texts().of(texts)
    pool = aria.Partition(*(getattr(pool, f) for f in FIELDS), terms=some, captions=None)
    pool.save(path)
    loaded = aria.Partition.load(path, mmap=mmap)
    assert loaded.captions is None
    assert [list(found) for found in loaded.terms] == texts
    assert loaded.terms == some
    assert hash(loaded.terms) == hash(some)
    assert loaded.terms[-1] == tuple(texts[-1])
    assert loaded.terms[:2] == [tuple(found) for found in texts[:2]]
    assert len(repr(loaded.terms)) < 60


FIELDS = ("_labels", "_order", "offsets", "names", "centers", "fingerprint")


def _texts():
    return sys.modules["aria_sampling.partition._texts"].Texts


def test_numpy_reads_the_texts(tmp_path):
    pool = aria.Partition.from_labels(LABELS).named(TEXTS)
    pool.save(tmp_path / "pool.aria")
    with np.load(tmp_path / "pool.aria") as arrays:
        text, ends, last = (arrays[f"captions_{part}"] for part in ("bytes", "ends", "last"))
        begins = np.concatenate([[0], ends[:-1]])
        found = [bytes(text[b:e]).decode() for b, e in zip(begins, ends, strict=True)]
    assert tuple(found[: last[0]]) == pool.captions[0]
    assert np.load(tmp_path / "pool.aria")["labels"].tolist() == LABELS.tolist()


# ------------------------------------------------------------------------------------------- in words


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(0, 5), st.data())
def test_a_summary_adds_up(sizes, most, data):
    pool = aria.Partition.from_labels(np.repeat(np.arange(len(sizes)), sizes))
    counts = np.array(data.draw(st.lists(st.integers(0, 2), min_size=len(sizes), max_size=len(sizes))), float)
    found = pool.describe(counts=counts, most=most)
    assert (found.n_items, found.n_regions, found.n_removed, found.n_empty) == (sum(sizes), len(sizes), 0, 0)
    assert (found.sizes[0], found.sizes[4]) == (min(sizes), max(sizes))
    share = np.array(sizes) / sum(sizes)
    assert found.effective_regions == pytest.approx(math.exp(-(share * np.log(share)).sum()))
    down = sorted(sizes, reverse=True)
    assert sum(down[: found.half]) * 2 >= sum(sizes) > 2 * sum(down[: found.half - 1])
    assert found.tail == pytest.approx(sum(down[(len(sizes) + 1) // 2 :]) / sum(sizes))
    assert found.n_covered == (counts > 0).sum()
    assert found.covered == pytest.approx(share[counts > 0].sum())
    assert [r.size for r in found.largest] == down[:most]
    listed = [r.region for r in (*found.largest, *found.smallest)]
    assert len(set(listed)) == len(listed) == min(2 * most, len(sizes))
    assert all(counts[r.region] == 0 == r.rows for r in found.uncovered)
    assert len(found.uncovered) == min(most, int((counts == 0).sum()))
    assert sum(r.share for r in pool.describe(most=50).largest) == pytest.approx(1)


def test_a_summary_has_names_and_captions_and_goes_into_json():
    import json

    pool = aria.Partition.from_labels(LABELS).named(TEXTS).without(np.flatnonzero(LABELS == 5))
    found = pool.describe(most=2)
    assert (found.n_removed, found.n_empty, found.width, found.n_covered, found.covered) == (50, 1, None, None, None)
    assert found.largest[0].name == "dog"
    assert found.largest[0].captions == pool.captions[0]
    again = json.loads(json.dumps(found.to_dict()))
    assert again["largest"][0]["terms"] == ["dog"]
    for bad, name in (({"counts": [1.0]}, "counts"), ({"counts": [-1.0] * 6}, "counts"), ({"most": -1}, "most")):
        with pytest.raises(ValueError, match=f"^{name}"):
            pool.describe(**bad)
