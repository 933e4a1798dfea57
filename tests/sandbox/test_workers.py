from __future__ import annotations

import copy
import os
import pickle
import threading
import time
from typing import TYPE_CHECKING

import pytest

from agentrl.errors import SandboxError
from agentrl.sandbox.graders import FunctionGrader, Grade, Verdict
from agentrl.sandbox.worker import Worker, WorkerDied, WorkerFailure, Workers, WorkerTimeout, close_shared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# What a user's scoring function may do wrong, by the answer it is given.
SCORER = """
import os, time

class Tensor:
    def __float__(self): return 1.0
    def __repr__(self): raise RuntimeError("no repr")

def score(answer, gold):
    if answer == "raise": raise KeyError("bug")
    if answer == "loop":
        while True: pass
    if answer == "die": os._exit(3)
    if answer == "print": print("{}", flush=True)
    if answer == "memory": raise MemoryError
    values = {"nan": float("nan"), "inf": float("inf"), "text": "1.0", "true": True, "none": None,
              "list": [1.0], "two": 2, "minus": -0.5, "tensor": Tensor(), "print": 1, "half": 0.5}
    return values.get(answer, float(answer == gold))
"""
ECHO = "agentrl.sandbox.graders.scorer:prepare"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("scorer")
    (made / "my_scorer.py").write_text(SCORER)
    yield made
    close_shared()


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        ("gold", "correct"),
        ("other", "wrong"),
        ("half", "wrong"),
        ("true", "correct"),
        ("print", "correct"),
        ("raise", "grader_error"),  # S14
        ("die", "grader_error"),
        ("memory", "grader_error"),
        ("nan", "grader_error"),  # S15
        ("inf", "grader_error"),
        ("text", "grader_error"),
        ("none", "grader_error"),
        ("list", "grader_error"),
        ("tensor", "grader_error"),
        ("two", "grader_error"),  # S17
        ("minus", "grader_error"),
        ("loop", "timeout"),
    ],
)
def test_a_scoring_function_gives_numbers_or_nothing(answer: str, verdict: str, folder: Path) -> None:
    grade = FunctionGrader("my_scorer:score", str(folder), seconds=0.3)(answer, "gold")

    assert grade.verdict == verdict, grade
    assert (grade.reward is None) is (verdict not in {"correct", "wrong"})


def test_a_grader_is_a_value(folder: Path) -> None:
    grader = FunctionGrader("my_scorer:score", str(folder))

    assert pickle.loads(pickle.dumps(grader)) == copy.deepcopy(grader) == grader
    assert copy.deepcopy(grader)("gold", "gold").reward == 1.0


def test_a_missing_function_is_named() -> None:
    grade = FunctionGrader("no_such_module:f")("a", "b")

    assert grade.verdict is Verdict.GRADER_ERROR
    assert "no_such_module" in grade.message
    close_shared()


def test_a_score_outside_its_range_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        Grade(Verdict.CORRECT, 1.5)


@pytest.fixture
def worker(folder: Path) -> Iterator[Worker]:
    with Worker(ECHO, {"function": "my_scorer:score", "path": str(folder)}) as made:
        yield made


def test_a_process_is_used_again_and_replaced_when_it_is_gone(worker: Worker) -> None:
    ask = {"answer": "a", "gold": "a"}
    assert worker.call(ask, 1) == {"score": 1.0}
    first = worker.pid
    with pytest.raises(WorkerFailure, match="KeyError"):
        worker.call({"answer": "raise", "gold": "a"}, 1)
    assert worker.pid == first

    with pytest.raises(WorkerDied, match="3"):
        worker.call({"answer": "die", "gold": "a"}, 1)
    with pytest.raises(WorkerTimeout):
        worker.call({"answer": "loop", "gold": "a"}, 0.1)
    assert worker.call(ask, 1) == {"score": 1.0}
    assert worker.pid != first


def test_close_ends_the_process(worker: Worker) -> None:
    worker.call({"answer": "a", "gold": "a"}, 1)
    pid = worker.pid
    worker.close()

    assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_process_that_nobody_waits_for_ends_by_itself(worker: Worker) -> None:
    worker.call({"answer": "a", "gold": "a"}, 1)
    process = worker._process
    assert process is not None
    assert process.stdin is not None
    # As if this process had been killed during a request: nobody reads, nobody kills.
    process.stdin.write(b'{"data": {"answer": "loop", "gold": ""}, "cpu": 0.2, "wall": 5}\n')
    process.stdin.flush()

    assert process.wait(20) < 0


def test_a_request_larger_than_a_pipe_passes(worker: Worker) -> None:
    huge = "x" * 2_000_000

    assert worker.call({"answer": huge, "gold": huge}, 5) == {"score": 1.0}


def test_a_worker_that_does_not_start_says_why() -> None:
    with (
        Worker("agentrl.sandbox.graders.scorer:missing") as broken,
        pytest.raises(SandboxError, match="missing"),
    ):
        broken.call({}, 1)


def test_threads_share_a_pool_and_none_waits_for_a_loop_of_another(folder: Path) -> None:
    pool = Workers(ECHO, {"function": "my_scorer:score", "path": str(folder)}, size=2)
    pool.call({"answer": "a", "gold": "a"}, 1)
    answers: list[object] = []

    def ask(answer: str) -> None:
        try:
            answers.append(pool.call({"answer": answer, "gold": "a"}, 0.3))
        except WorkerTimeout:
            answers.append("timeout")

    began = time.monotonic()
    threads = [threading.Thread(target=ask, args=(word,)) for word in ("loop", "a", "b", "a", "loop", "a")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    pool.close()

    assert answers.count("timeout") == 2
    assert answers.count({"score": 1.0}) == 3
    assert time.monotonic() - began < 50
