"""Remedies of partition, coverage, adoption, and of the checks that all arguments pass."""

from tests.unit.remedies.case import Case

_FROM = "pool = aria.Partition.from_labels(labels)"
_POOL = "partition = aria.Partition.from_labels([0, 1, 1, 0], centers=[[0.0], [1.0]])\n"
_PLAIN = "partition = aria.Partition.from_labels([0, 1, 1, 0])\n"
_COVER = "coverage = aria.Coverage(partition, items=items)"
_CAPTIONS = "caption_embeddings = np.array([[0.0], [0.9], [0.2]])\n"
_ASSIGN = "partition.assign(embeddings)"
_SAVED = "import tempfile; path = tempfile.mkdtemp() + '/images.coverage'\nitems = [0]\n"
_NAMED = "pool, texts = aria.Partition.from_labels([0, 1]), ['a dog', 'a cat']\n"
_TERMS = "assert pool.captions[0] == ('a dog',)"
_SPARSE = "from scipy.sparse import csr_matrix\n"
_THERE = "assert coverage.counts.sum() == "

CASES = [
    Case("labels with -1", "labels = [0, -1, 1]", _FROM, "assert pool.names == ('0', '1', 'noise')"),
    Case("labels with None", "labels = ['a', None, 'b']", _FROM, "assert pool.names == ('a', 'b', 'noise')"),
    Case("labels with NaN", "labels = np.array([1.0, np.nan, 0.0])", _FROM, "assert pool.n_regions == 3"),
    Case("labels with gaps", "labels = [7, 900, 7]", _FROM),
    Case("labels with more regions than items", "labels = torch.tensor([7, 900])", _FROM),
    Case("labels with gaps inside", "labels = [0, 2, 2, 2]", _FROM),
    Case("labels with gaps and nulls", "labels = [3, None, 3]", _FROM),
    Case("labels below -1", "labels = np.array([-5, 0, 3])", _FROM),
    Case("labels in a column", "labels = np.array([[0], [1]])", _FROM),
    Case("labels as a mask a region", "labels = np.eye(3, dtype=bool)[[0, 2, 1, 1]]", _FROM),
    Case("labels as a mask a region, in a tensor", "labels = torch.eye(3).long()[[0, 2, 1, 1]]", _FROM),
    Case("labels that cannot be hashed", "labels = [{'a': 1}, {'a': 2}]", _FROM),
    Case("labels that are sparse", _SPARSE + "labels = csr_matrix([[0], [1]])", _FROM),
    Case("labels in a sparse tensor", "labels = torch.tensor([0, 1, 1]).to_sparse()", _FROM),
    Case("embeddings that are sparse", _POOL + _SPARSE + "embeddings = csr_matrix([[0.0], [1.0]])", _ASSIGN),
    Case("embeddings one by one", _POOL + "embeddings = np.empty(1, object); embeddings[0] = np.ones(1)", _ASSIGN),
    Case("embeddings of three axes", _POOL + "embeddings = torch.ones(2, 1, 1)", _ASSIGN),
    Case(
        "embeddings beside text",
        _POOL
        + "class Frame:\n"  # as a DataFrame of pandas, which need not be here
        + "    def __array__(self, *_, **__): return np.array([[0.0, 'a']], object)\n"
        + "    def select_dtypes(self, kind): return np.array([[0.0]])\n"
        + "embeddings = Frame()",
        _ASSIGN,
    ),
    Case("embeddings for captions of a partition of labels", _NAMED, "pool.named(texts, embeddings=np.eye(2))", _TERMS),
    Case(
        "refits of as many regions as items",
        "x, refits = np.eye(4), 1; pool = aria.KMeansPartitioner(n_regions=3).fit(x)",
        "aria.quality(pool, x, refits=refits)",
    ),
    Case(
        "a partitioner in the place of a function",
        "x, partitioner = np.arange(64.0)[:, None], aria.KMeansPartitioner(n_regions=2)",
        "aria.quality_curve(x, n_regions=[2], partitioner=partitioner)",
    ),
    Case(
        "a product of partitions of other items",
        "self, other = aria.Partition.from_labels([0, 1, 1]), aria.Partition.from_labels([0, 1])",
        "self.product(other)",
        "assert pool.n_items == 6",
    ),
    Case("no coverage at all", _POOL, "aria.Coverage(partition)", "assert coverage.is_empty"),
    Case("captions outside the pool", _POOL + _CAPTIONS + "items = np.array([0, -1, 3])", _COVER, _THERE + "3"),
    Case("captions outside the pool, in a list", _POOL + _CAPTIONS + "items = [0, -1, 3]", _COVER, _THERE + "3"),
    Case("captions outside the pool, as NaN", _POOL + _CAPTIONS + "items = [0.0, np.nan, 3.0]", _COVER, _THERE + "3"),
    Case(
        "captions outside the pool, in a tensor",
        _POOL + _CAPTIONS + "items = torch.tensor([0, -1, 3])",
        _COVER,
        _THERE + "3",
    ),
    Case("captions outside a pool without centres", _PLAIN + "items = np.array([0, -1, 3])", _COVER, _THERE + "2"),
    Case("items that are floats", _PLAIN + "items = np.array([0.0, 3.0])", _COVER),
    Case("items that are floats, in a tensor", _PLAIN + "items = torch.tensor([0.0, 3.0])", _COVER),
    Case("items in a column", _PLAIN + "items = np.array([[0], [3]])", _COVER),
    Case("items in a column, in a tensor", _PLAIN + "items = torch.tensor([[0], [3]])", _COVER),
    Case(
        "losses of several a row",
        "losses = [[1.0, 2.0], [3.0, 4.0]]",
        "aria.Feedback.from_rows([0, 1], losses, n_regions=2)",
    ),
    Case(
        "coverage of another pool",
        _POOL + _SAVED + "aria.Coverage(aria.Partition.from_labels([0, 1]), items=[0]).save(path)",
        "coverage = aria.Coverage.load(path, partition)",
        "assert coverage.partition is partition",
    ),
    Case(
        "coverage of other centres",
        _POOL + _PLAIN.replace("partition", "same") + _SAVED + "aria.Coverage(same, items=[0]).save(path)",
        "coverage = aria.Coverage.load(path, partition)",
        "assert coverage.partition is partition",
    ),
]
