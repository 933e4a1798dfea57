"""Search: corpora, BM25, dense vectors, the `/retrieve` protocol from both sides, and the tool."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from agentrl.errors import ConfigError, EnvironmentFault
from agentrl.testing import check_tool
from agentrl.world import Toolbox, tools_of
from agentrl.world.registry import list_tools, load_tool
from agentrl_tools.search import Bm25, Corpus, Dense, Document, Remote, Search, listed, read_corpus, serve
from agentrl_tools.search.bm25 import best, words
from agentrl_tools.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

DOCUMENTS = [
    Document("a", "Tea", "Tea is a hot drink made of leaves."),
    Document("b", "Coffee", "Coffee is a hot drink made of beans."),
    Document("c", "Salt", "Salt is a mineral; nobody drinks it hot."),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indices of a test go away with it."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def corpus() -> Corpus:
    return Corpus.of(DOCUMENTS)


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_what_cannot_be_searched_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"empty\.jsonl holds no documents, so there is nothing to search"):
        read_corpus(write(tmp_path / "empty.jsonl", []))
    with pytest.raises(ConfigError, match=r"blank\.jsonl holds 2 documents without a text"):
        read_corpus(write(tmp_path / "blank.jsonl", [{"id": "a", "text": ""}, {"id": "b", "text": " "}]))
    half = write(tmp_path / "half.jsonl", [{"text": "Tea."}, {"text": "Salt \ud800."}])
    with pytest.raises(ConfigError, match=r"line 2 of .*half\.jsonl holds '\\ud800', which is half of"):
        read_corpus(half)
    (tmp_path / "half.json").write_text(json.dumps([{"text": "\N{HOT BEVERAGE} NaN"}, {"text": "\udfff"}]))
    with pytest.raises(ConfigError, match=r"item 1 of .*half\.json holds '\\udfff'"):
        read_corpus(tmp_path / "half.json")


def test_the_server_says_what_is_wrong_in_a_sentence(tmp_path: Path) -> None:
    import subprocess
    import sys

    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "Tea."}\n{"text": \n')
    for corpus, said in ((tmp_path / "nope.jsonl", "there is no file"), (broken, "line 2 of")):
        command = [sys.executable, "-m", "agentrl_tools.search.server", str(corpus)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode != 0
        assert done.stderr.startswith(f"error: {said}")
        assert done.stderr.count("\n") == 1


# -- corpora -----------------------------------------------------------------------------------------------


def test_a_corpus_is_read_from_every_form(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"id": d.id, "title": d.title, "text": d.text} for d in DOCUMENTS]
    searchr1 = write(tmp_path / "r1.jsonl", [{"id": d.id, "contents": d.contents} for d in DOCUMENTS])
    plain = write(tmp_path / "plain.jsonl", rows)
    packed = tmp_path / "plain.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    table = tmp_path / "plain.parquet"
    pq.write_table(pa.Table.from_pylist(rows), table)
    found = [read_corpus(path) for path in (searchr1, plain, packed, table)]
    assert [list(corpus) for corpus in found] == [DOCUMENTS] * 4
    assert len({corpus.digest for corpus in found}) == 1
    assert Corpus.of(DOCUMENTS[:2]).digest != found[0].digest


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"id": 1, "text": "x"}\nno json\n', r"line 2 of .* is no JSON"),
        ('{"id": 1, "title": "x"}\n', r"line 1 of .* has no text: it has id, title"),
        ("[1]\n", r"line 1 of .* is no JSON object"),
    ],
)
def test_a_bad_record_is_named_by_its_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_corpus(path)
    with pytest.raises(ConfigError, match="there is no file"):
        read_corpus(tmp_path / "missing.jsonl")
    (tmp_path / "bad.parquet").write_bytes(b"PAR")
    with pytest.raises(ConfigError, match="no Parquet file"):
        read_corpus(tmp_path / "bad.parquet")


# -- BM25 --------------------------------------------------------------------------------------------------


def test_bm25_by_hand(corpus: Corpus) -> None:
    """Lucene's BM25 with k1 = 0.9, b = 0.4 for the word "leaves", which one of three documents holds once.

    idf = ln(1 + (3 - 1 + 0.5) / (1 + 0.5)) = ln(8/3) = 0.98083
    Words that count (title twice, no stopwords): tea tea hot drink made leaves = 6; coffee the same: 6;
    salt salt mineral nobody drinks hot = 6; so the mean is 6 and the length norm is 1.
    score = idf * 1 / (1 + 0.9 * (1 - 0.4 + 0.4 * 1)) = 0.98083 / 1.9 = 0.51623
    """
    (hit,) = Bm25(corpus, cache=None).search("leaves", 3)
    assert hit.document == DOCUMENTS[0]
    assert hit.score == pytest.approx(np.log(8 / 3) / 1.9, rel=1e-5)


def test_bm25_is_steady_and_bounded(corpus: Corpus) -> None:
    found = Bm25(corpus, cache=None)
    assert [hit.document.id for hit in found.search("hot drink", 3)] == ["a", "b", "c"]  # a and b tie: by row
    assert found.search("the of and", 3) == found.search("", 3) == found.search("xyzzy", 3) == []
    assert len(found.search("hot " * 1_000_000, 2)) == 2


@pytest.mark.parametrize("k", [1, 2, 5, 100])
def test_the_best_rows_are_those_of_a_full_sort(k: int) -> None:
    scores = np.random.default_rng(0).integers(0, 5, 50).astype(np.float32)
    expected = sorted((row for row in range(50) if scores[row] > 0), key=lambda row: (-scores[row], row))[:k]
    assert best(scores, k) == expected


def test_an_index_is_built_once_for_each_content(tmp_path: Path, corpus: Corpus) -> None:
    first = Bm25(corpus, cache=tmp_path)
    (folder,) = tmp_path.iterdir()
    stamp = folder.stat().st_mtime_ns
    second = Bm25(Corpus.of(DOCUMENTS), cache=tmp_path)
    assert [folder] == list(tmp_path.iterdir())
    assert folder.stat().st_mtime_ns == stamp
    assert first.search("hot drink", 3) == second.search("hot drink", 3)
    Bm25(Corpus.of(DOCUMENTS[:2]), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_words_are_what_a_reader_would_count() -> None:
    assert words("The U.S. and Straße-Café, 3.14") == ["u", "s", "straße", "café", "3", "14"]


# -- dense -------------------------------------------------------------------------------------------------


class Letters:
    """Vectors of letter counts."""

    name = "letters"

    def queries(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        rows = [[text.lower().count(letter) - 0.5 for letter in "tcs"] for text in texts]
        return np.array(rows, np.float32)

    documents = queries


def test_dense_results_are_inner_products(tmp_path: Path, corpus: Corpus) -> None:
    found = Dense(corpus, Letters(), cache=tmp_path)
    again = Dense(corpus, Letters(), cache=tmp_path)
    for query in ("ttt", "ccc", "sss"):
        vector = Letters().queries([query])[0]
        expected = Letters().queries([f"{d.title}\n{d.text}" for d in DOCUMENTS]) @ vector
        hits = found.search(query, 3)
        assert [hit.document for hit in hits] == [
            DOCUMENTS[row] for row in np.argsort(-expected, kind="stable")
        ]
        assert [hit.score for hit in hits] == pytest.approx(sorted(expected.tolist(), reverse=True))
        assert hits == again.search(query, 3)

    class Broken(Letters):
        name = "broken"

        def documents(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
            return np.full((len(texts), 2), np.nan, np.float32)

    with pytest.raises(ConfigError, match="give finite ones"):
        Dense(corpus, Broken(), cache=None)


def test_a_model_of_the_users_encodes(tmp_path: Path, corpus: Corpus) -> None:
    torch = pytest.importorskip("torch")
    from transformers import BertConfig, BertModel, BertTokenizer

    from agentrl_tools.search import TransformersEncoder

    torch.set_num_threads(1)
    torch.manual_seed(0)
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *words(" ".join(d.contents for d in DOCUMENTS)),
        ":",
    ]
    (tmp_path / "vocab.txt").write_text("\n".join(dict.fromkeys(vocabulary)), encoding="utf-8")
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    shape = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    BertModel(shape).save_pretrained(tmp_path)
    encoder = TransformersEncoder(str(tmp_path), document_prefix="", query_prefix="")
    vectors = encoder.documents([d.text for d in DOCUMENTS])
    assert vectors.shape == (3, 16)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(np.ones(3), abs=1e-5)
    # Padding of longer neighbours changes nothing.
    assert encoder.documents([DOCUMENTS[0].text])[0] == pytest.approx(vectors[0], abs=1e-5)
    (hit,) = Dense(corpus, encoder, cache=None).search("Tea\nTea is a hot drink made of leaves.", 1)
    assert hit.document.title == "Tea"


# -- /retrieve ---------------------------------------------------------------------------------------------

ITEM = {"id": "a", "contents": '"Tea"\nA drink.'}
VARIANTS: dict[str, object] = {
    "Search-R1 with scores": {"result": [[{"document": ITEM, "score": 1.5}]]},
    "Search-R1 without scores": {"result": [[ITEM]]},
    "online search: no score": {"result": [[{"document": {"contents": '"Tea"\nA drink.'}}]]},
    "BM25: title and text": {
        "result": [[{"document": {"id": "a", "title": "Tea", "text": "A drink."}, "score": 1}]]
    },
    "ASearcher: contents and url": {"result": [[{"contents": '"Tea"\nA drink.', "url": "http://tea"}]]},
    "bare texts": {"result": [['"Tea"\nA drink.']]},
    "one query, one list": {"result": [ITEM]},
    "more than was asked for": {"result": [[ITEM, ITEM, ITEM]]},
}


def remote(answer: Callable[[httpx.Request], httpx.Response], **bounds: Any) -> Remote:
    def streamed(request: httpx.Request) -> httpx.Response:
        given = answer(request)
        return httpx.Response(given.status_code, headers=given.headers, content=iter([given.content]))

    wire = Wire(transport=httpx.MockTransport(streamed), pause=0.001, **bounds)
    return Remote("http://search.test/retrieve", wire)


@pytest.mark.parametrize("answer", VARIANTS.values(), ids=VARIANTS)
def test_the_client_understands_every_server(answer: object) -> None:
    asked: list[object] = []

    def serve_it(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return httpx.Response(200, json=answer)

    (hit,) = remote(serve_it).search("tea", 1)
    assert (hit.document.title, hit.document.text) == ("Tea", "A drink.")
    assert asked == [{"queries": ["tea"], "topk": 1, "return_scores": True}]


class Same:
    """A server that always gives one answer."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer

    def __call__(self, request: httpx.Request) -> httpx.Response:
        return self.answer


def test_a_server_that_takes_queries_alone_is_asked_so_from_then_on() -> None:
    asked: list[set[str]] = []

    def strict(request: httpx.Request) -> httpx.Response:
        asked.append(set(json.loads(request.content)))
        return (
            httpx.Response(422)
            if len(asked[-1]) > 1
            else httpx.Response(200, json={"result": [[ITEM, ITEM]]})
        )

    client = remote(strict)
    assert len(client.search("tea", 1)) == len(client.search("salt", 1)) == 1
    assert [len(keys) for keys in asked] == [3, 1, 1]


def test_what_may_pass_is_tried_again_and_what_stays_is_a_fault() -> None:
    statuses = [503, 429, 200]

    def busy(request: httpx.Request) -> httpx.Response:
        return httpx.Response(statuses.pop(0), json={"result": [[ITEM]]}, headers={"retry-after": "0"})

    assert len(remote(busy).search("tea", 1)) == 1
    for answer, message in (
        (httpx.Response(500), "3 attempts failed; the last one: search.test answered with status 500"),
        (httpx.Response(404, text="no"), "status 404"),
        (httpx.Response(200, text="<html>"), "sends no JSON"),
        (httpx.Response(200, json={"results": []}), 'no "result" list'),
        (httpx.Response(200, json={"result": [[7]]}), "a document that is none"),
        (httpx.Response(200, content=b'"' + b"x" * 3000 + b'"'), "more than 2000 bytes"),
    ):
        with pytest.raises(EnvironmentFault, match=message):
            remote(Same(answer), most_bytes=2000).search("tea", 1)

    def lost(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    with pytest.raises(EnvironmentFault, match="ConnectError"):
        remote(lost).search("tea", 1)


def test_the_server_speaks_the_protocol(corpus: Corpus) -> None:
    with serve(Bm25(corpus, cache=None)) as url, httpx.Client(trust_env=False) as client:
        whole = client.post(url, json={"queries": ["tea", "salt"], "topk": 1, "return_scores": True}).json()
        assert [[item["document"]["id"] for item in found] for found in whole["result"]] == [["a"], ["c"]]
        assert whole["result"][0][0]["document"]["contents"] == DOCUMENTS[0].contents
        assert isinstance(whole["result"][0][0]["score"], float)
        # One query without scores is what Search-R1's own server fails on.
        (found,) = client.post(url, json={"queries": ["hot"], "topk": None, "return_scores": False}).json()[
            "result"
        ]
        assert [item["title"] for item in found] == ["Tea", "Coffee", "Salt"]
        wrongs: tuple[object, ...] = (
            {"queries": "tea"},
            {"queries": [1]},
            {"queries": [], "topk": 0},
            [],
            {"queries": ["x"] * 2000},
        )
        for wrong in wrongs:
            assert client.post(url, json=wrong).status_code == 422
        assert client.post(url, content=b"{").status_code == 422
        assert client.post(url, content=b"x" * 1_000_001).status_code == 413
        assert client.get(url).status_code == 404
        assert client.get(url.replace("retrieve", "health")).json() == {"status": "healthy"}
        hits = Remote(url).search("hot drink", 2)
        assert [(hit.document.id, hit.document.text) for hit in hits] == [
            (d.id, d.text) for d in DOCUMENTS[:2]
        ]


def test_search_r1s_own_corpus_through_the_real_protocol(test_data: Path) -> None:
    corpus = read_corpus(test_data / "searchr1" / "corpus.jsonl")
    assert len(corpus) > 5
    assert all(document.title for document in corpus)
    with serve(Bm25(corpus, cache=None)) as url:
        tool = Search(url, k=2)
        result = tool.search("Evan Morris, a lobbyist for Genentech and the White House film")
        assert result.text.startswith(
            'Doc 1(Title: "Evan Morris") Evan Morris Evan L. Morris (January 26, 1977'
        )
        assert result.metrics == {"documents": 2.0}


# -- the tool ----------------------------------------------------------------------------------------------


def test_the_tool_keeps_the_contract(tmp_path: Path) -> None:
    path = write(tmp_path / "corpus.jsonl", [{"id": d.id, "contents": d.contents} for d in DOCUMENTS])
    assert {"calculator", "finish", "http", "search"} <= set(list_tools())
    (found,) = load_tool("search", corpus=str(path), k=1)
    check_tool(found, arguments=[{"query": "tea"}, {"query": "xyzzy"}]).raise_if_failed()
    assert found.call({"query": "leaves"}).text == 'Doc 1(Title: "Tea") Tea is a hot drink made of leaves.'
    assert found.call({"query": "xyzzy"}).text == "No document was found. Try other words."
    assert found.call({"query": " "}).error == "search failed: the query is empty; write a few words"
    assert listed([]) == ""
    for arguments in ({}, {"corpus": str(path), "k": 0}, {"corpus": "x", "retriever": object()}):
        with pytest.raises(ConfigError):
            Search(**arguments)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ConfigError, match="no address"):
        Remote("ftp://x")


def test_a_failing_server_is_a_fault_and_no_observation() -> None:
    box = Toolbox([Search(retriever=remote(lambda _: httpx.Response(500)))])
    (found,) = box.tools
    with pytest.raises(EnvironmentFault):
        found.call({"query": "tea"})
    assert tools_of(found) == (found,)
