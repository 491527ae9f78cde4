"""The page on a partition: whole, safe, in one file, and right in its numbers."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

import aria_sampling as aria
from aria_sampling import report


class Page(HTMLParser):
    """Tags that are open, and the rows of the last table."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.links = [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append("")
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href")]
        assert tag != "script"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.rows and "td" in self.open:
            self.rows[-1] += data + "|"


def pool():
    labels = np.repeat(np.arange(4), (1, 2, 5, 12))
    texts = [f"<script>alert({k})</script> & dog{k}" for k in labels]
    return aria.Partition.from_labels(labels, names=["<b>red</b>", "green", "\ud800", "grey"]).named(texts)


def test_the_page_is_whole_and_has_no_link(tmp_path):
    text = report.pool_html(pool(), tmp_path / "pool.html", counts=[0, 3, 0, 1]).read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    assert page.links == []
    assert "http" not in text
    regions = [row for row in page.rows if re.match(r"(<b>red|green|\\ud800|grey)", row)]
    assert [row.split("|")[0] for row in regions] == ["\\ud800", "<b>red</b>", "grey", "green"]  # without data first
    assert "grey|3|12|60%|1|<script>alert(3)</script> & dog3|" in regions[2]
    assert "20 items, in 4 regions" in text
    assert text.count("<rect") == 4


def test_many_regions_are_drawn_in_groups_and_the_largest_listed(tmp_path):
    many = aria.Partition.from_sizes(np.arange(1, 2001))
    text = report.pool_html(many, tmp_path / "pool.html").read_text(encoding="utf-8")
    assert text.count("<rect") == 400
    assert "500 of 2,000 regions, the largest first" in text
    assert "regions 1 to 5 by size: 1,998 items" in text
    assert len(text) < 400_000
    assert Page(text).open == []


def test_a_pool_of_one_item(tmp_path):
    assert Page(report.pool_html(aria.Partition.from_labels([0]), tmp_path / "p").read_text("utf-8")).open == []


def test_what_is_no_pool():
    for call in (lambda: report.pool_html(3, "p"), lambda: report.pool_html(pool(), "p", counts=[1])):
        with pytest.raises(ValueError, match=r"^(partition|counts): expected"):
            call()
