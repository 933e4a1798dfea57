"""Dense retrieval: exact inner products of vectors that the user's own model makes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from agentrl.errors import ConfigError, MissingExtraError
from agentrl_tools.search.bm25 import best
from agentrl_tools.search.cache import default_cache, kept
from agentrl_tools.search.results import Hit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from agentrl_tools.search.corpus import Corpus

    Vectors = NDArray[np.float32]


class Encoder(Protocol):
    """Turns texts into vectors."""

    @property
    def name(self) -> str:
        """What tells its vectors from those of others, for the cache."""
        ...

    def queries(self, texts: Sequence[str]) -> Vectors:
        """(R, D) one vector for each query."""
        ...

    def documents(self, texts: Sequence[str]) -> Vectors:
        """(R, D) one vector for each document."""
        ...


@dataclass
class Dense:
    """Finds documents by the inner product of vectors, exactly.

    Args:
        corpus: what is searched.
        encoder: makes the vectors, for example a `TransformersEncoder`.
        cache: folder that keeps the vectors by the hashes of corpus and encoder; None keeps nothing on disk.
        batch: documents that are encoded at once.

    Raises:
        ConfigError: the encoder gives something else than one finite vector for each text.
    """

    corpus: Corpus
    encoder: Encoder
    cache: Path | None = field(default_factory=default_cache)
    batch: int = 64
    _vectors: Vectors = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.cache is None:
            self._vectors = self._encoded()
            return
        encoder = hashlib.blake2b(self.encoder.name.encode(), digest_size=8).hexdigest()
        name = f"dense-{encoder}-{self.corpus.digest}"
        folder = kept(self.cache, name, lambda path: np.save(path / "vectors.npy", self._encoded()))
        self._vectors = np.load(folder / "vectors.npy", mmap_mode="r")

    def search(self, query: str, k: int) -> list[Hit]:
        """Return the `k` documents with the largest inner products, the best first."""
        (vector,) = _checked(self.encoder.queries([query]), 1)
        scores = self._vectors @ vector
        # `best` looks at scores above 0 only; inner products may be anything.
        shifted = scores - scores.min() + 1.0
        return [Hit(self.corpus[row], float(scores[row])) for row in best(shifted, k)]

    def __deepcopy__(self, memo: dict[int, object]) -> Dense:
        return self

    def _encoded(self) -> Vectors:
        if not len(self.corpus):
            raise ConfigError("the corpus is empty; there is nothing to encode.")
        batches = _batches(self.corpus.texts(), self.batch)
        pieces = [_checked(self.encoder.documents(texts), len(texts)) for texts in batches]
        return np.concatenate(pieces)


def _batches(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    held: list[str] = []
    for text in texts:
        held.append(text)
        if len(held) == size:
            yield held
            held = []
    if held:
        yield held


def _checked(vectors: Vectors, count: int) -> Vectors:
    if vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all():
        raise ConfigError(
            f"the encoder gave an array of shape {vectors.shape} for {count} texts; give finite ones."
        )
    return vectors.astype(np.float32, copy=False)


@dataclass
class TransformersEncoder:
    """A model of transformers as an encoder: the mean of the last hidden states, normalised.

    Args:
        path: a model folder in the hub's format, or a hub name.
        query_prefix, document_prefix: what the model wants before a text; these are the E5 models' own.
        longest: tokens of a text that are read.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """

    path: str
    query_prefix: str = "query: "
    document_prefix: str = "passage: "
    longest: int = 256
    _parts: tuple[PreTrainedTokenizerBase, PreTrainedModel] | None = field(
        default=None, init=False, repr=False
    )

    @property
    def name(self) -> str:
        """The path and everything that changes the vectors."""
        return repr((self.path, self.query_prefix, self.document_prefix, self.longest))

    def queries(self, texts: Sequence[str]) -> Vectors:
        """(R, D) one vector for each query."""
        return self._encode([self.query_prefix + text for text in texts])

    def documents(self, texts: Sequence[str]) -> Vectors:
        """(R, D) one vector for each document."""
        return self._encode([self.document_prefix + text for text in texts])

    def _encode(self, texts: list[str]) -> Vectors:
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise MissingExtraError("Dense search", "train") from error
        if self._parts is None:
            model = AutoModel.from_pretrained(self.path).eval()
            self._parts = (AutoTokenizer.from_pretrained(self.path), model)
        tokenizer, model = self._parts
        with torch.inference_mode():
            given = tokenizer(
                texts, padding=True, truncation=True, max_length=self.longest, return_tensors="pt"
            )
            hidden = model(**given).last_hidden_state
            return _mean(hidden, given["attention_mask"])


def _mean(hidden: torch.Tensor, mask: torch.Tensor) -> Vectors:
    import torch

    weight = mask.unsqueeze(-1).to(hidden.dtype)
    mean = (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
    found: Vectors = torch.nn.functional.normalize(mean, dim=-1).float().numpy()
    return found
