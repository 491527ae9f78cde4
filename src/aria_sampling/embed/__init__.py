"""Embeddings of a pool of prompts: made shard by shard, kept on the disk, used as one array.

>>> import tempfile
>>> from aria_sampling import embed, prompts
>>> folder = tempfile.mkdtemp()
>>> pool = prompts.write(folder + "/pool", ["a red cat", "a red dog", "two boats on a lake"])
>>> vectors = embed.write(folder + "/vectors", pool, encoder="tfidf:8")
>>> vectors.shape, vectors[0:2].dtype
((3, 8), dtype('float16'))

`write` makes them with any object that has ``encode(texts)``, or with a built-in encoder, which `load` gives. `open`
opens them.
"""

from aria_sampling.embed._tfidf import Tfidf as Tfidf
from aria_sampling.embed.batch import Encoder as Encoder
from aria_sampling.embed.batch import encode as encode
from aria_sampling.embed.encoders import Clip as Clip
from aria_sampling.embed.encoders import SentenceTransformers as SentenceTransformers
from aria_sampling.embed.encoders import load as load
from aria_sampling.embed.store import Embeddings as Embeddings
from aria_sampling.embed.store import open as open
from aria_sampling.embed.writing import write as write

__all__ = ["Clip", "Embeddings", "Encoder", "SentenceTransformers", "Tfidf", "encode", "load", "open", "write"]
