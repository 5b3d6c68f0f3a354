import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mstar.equivalence.asking import Question
from mstar.equivalence.pool import Pool, Verdict, require_math_verify
from mstar.errors import MissingDependency, WorkerLost

COMMAND = (sys.executable, str(Path(__file__).with_name("waiting.py")))
ENOUGH = 600.0
ORPHANED = """
import os, signal, sys, threading, time
from mstar.equivalence.asking import Question
from mstar.equivalence.pool import Pool
pool = Pool(timeout={timeout}, command={command})
pool.ask(Question(pairs=(("1", "1"),)))
print(next(iter(pool._all))._process.pid, flush=True)
ask = lambda: pool.ask(Question(pairs=((sys.argv[1], "1"),)))
if sys.argv[1] != "1":
    threading.Thread(target=ask, daemon=True).start()
    while pool._idle:
        time.sleep(0.01)
    time.sleep(0.2)
os.kill(os.getpid(), signal.SIGKILL)
"""


def ask(one, other="1"):
    return Question(pairs=((one, other),))


@pytest.fixture
def pool():
    with Pool(timeout=ENOUGH, workers=2, command=COMMAND) as pool:
        yield pool


def pids(pool):
    return {worker._process.pid for worker in pool._all}


def alive(pid):
    try:
        os.kill(pid, 0)
        return (
            "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
            if sys.platform == "linux"
            else True
        )
    except (ProcessLookupError, FileNotFoundError):  # it may end between the two looks
        return False


def gone(pid, seconds=120.0):
    until = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not alive(pid)


def until_at_work(pool):
    """Return once one of the workers there are has been given a question."""
    until = time.monotonic() + 120
    while len(pool._idle) == len(pool._all):
        assert time.monotonic() < until, "no worker was given a question"
        time.sleep(0.01)


def test_no_process_is_started_before_the_first_question(pool):
    assert not pids(pool)
    pool.ask(ask("1"))
    assert len(pids(pool)) == 1
    pool.ask(ask("1"))
    assert len(pids(pool)) == 1


def test_a_question_is_right_when_all_its_pairs_are_equal(pool):
    assert pool.ask(ask("1")) is Verdict.RIGHT
    assert pool.ask(ask("2")) is Verdict.WRONG
    assert pool.ask(Question(pairs=(("1", "1"), ("2", "2")))) is Verdict.RIGHT
    assert pool.ask(Question(pairs=(("1", "1"), ("2", "3")))) is Verdict.WRONG


@pytest.mark.parametrize("how", ["hang", "multiply"])
def test_a_hanging_worker_is_killed_and_replaced(pool, how):
    pool.ask(ask("1"))
    (before,) = pids(pool)
    pool.timeout = 0.3
    begin = time.monotonic()
    assert pool.ask(ask(how)) is Verdict.UNDECIDED
    assert time.monotonic() - begin < ENOUGH / 2
    assert gone(before)
    assert pool.killed == 1
    pool.timeout = ENOUGH
    assert pool.ask(ask("1")) is Verdict.RIGHT
    assert before not in pids(pool)


def test_the_deadline_holds_from_a_thread_that_is_not_the_main_one(pool):
    pool.ask(ask("1"))
    pool.timeout = 0.3
    found = []
    thread = threading.Thread(target=lambda: found.append(pool.ask(ask("hang"))))
    thread.start()
    thread.join(120)
    assert found == [Verdict.UNDECIDED]


def test_one_hanging_question_holds_up_no_other(pool):
    pool.ask_all([ask("1"), ask("2")])
    with ThreadPoolExecutor(1) as thread:
        hanging = thread.submit(pool.ask, ask("hang"))
        until_at_work(pool)
        verdicts = pool.ask_all([ask(str(n % 3)) for n in range(30)])
        assert not hanging.done()
        pool.close()
    assert verdicts == [Verdict.RIGHT if n % 3 == 1 else Verdict.WRONG for n in range(30)]


def test_many_threads_each_get_the_answer_to_their_own_question(pool):
    with ThreadPoolExecutor(8) as threads:
        numbers = [(n, n % 7) for n in range(200)]
        found = list(threads.map(lambda p: pool.ask(ask(str(p[0] % 5), str(p[1] % 5))), numbers))
    assert found == [Verdict.RIGHT if n % 5 == m % 5 else Verdict.WRONG for n, m in numbers]
    assert len(pids(pool)) <= 2


def test_a_question_that_ends_two_workers_is_undecided_and_was_no_timeout(pool):
    assert pool.ask(ask("die")) is Verdict.UNDECIDED
    assert pool.killed == 0
    assert pool.ask(ask("1")) is Verdict.RIGHT


def test_a_worker_that_died_while_idle_is_replaced_unseen(pool):
    pool.ask(ask("1"))
    (pid,) = pids(pool)
    os.kill(pid, signal.SIGKILL)
    assert pool.ask(ask("1")) is Verdict.RIGHT


def test_too_little_memory_is_undecided_and_an_error_is_wrong(pool):
    assert pool.ask(ask("memory")) is Verdict.UNDECIDED
    assert pool.ask(ask("error")) is Verdict.WRONG
    assert len(pids(pool)) == 1


def test_wrong_from_a_worker_that_took_much_memory_is_undecided_and_it_is_replaced(pool):
    pool.ask(ask("1"))
    (before,) = pids(pool)
    assert pool.ask(ask("swell")) is Verdict.UNDECIDED
    assert gone(before)
    assert pool.ask(ask("1")) is Verdict.RIGHT


def test_what_a_worker_that_is_swollen_from_earlier_questions_finds_wrong_is_asked_of_a_fresh_one(
    pool,
):
    pool.ask(ask("1"))
    (before,) = pids(pool)
    assert pool.ask(ask("swell once", str(before))) is Verdict.WRONG
    assert gone(before)
    assert pool.ask(ask("1")) is Verdict.RIGHT


def test_a_worker_started_by_a_large_process_is_not_swollen(pool):
    held = b"1" * (700 << 20)  # as a stage holds a model
    assert pool.ask(ask("1", "2")) is Verdict.WRONG
    (before,) = pids(pool)
    assert pool.ask(ask("1", "2")) is Verdict.WRONG
    assert pids(pool) == {before}
    del held


def test_a_start_that_fails_is_said_once_and_not_for_each_question():
    with Pool(timeout=1, workers=2, command=(sys.executable, "-c", "")) as pool:
        with pytest.raises(WorkerLost, match="did not start"):
            pool.ask_all([ask(str(n)) for n in range(1000)])
        assert not pool._all


def test_closing_leaves_no_process_and_refuses_further_questions(pool):
    pool.ask_all([ask("1"), ask("2")])
    before = pids(pool)
    pool.close()
    pool.close()
    assert all(map(gone, before))
    with pytest.raises(RuntimeError, match="closed"):
        pool.ask(ask("1"))


def test_closing_ends_a_question_at_work(pool):
    pool.ask(ask("1"))
    (pid,) = pids(pool)
    found = []

    def wait():
        try:
            pool.ask(ask("hang"))
        except RuntimeError as error:
            found.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    until_at_work(pool)
    pool.close()
    thread.join(120)
    assert found == ["the answer checker is closed"]
    assert gone(pid)


@pytest.mark.parametrize(("at_work", "timeout"), [("1", 60), ("hang", 1), ("multiply", 1)])
def test_no_worker_outlives_a_parent_that_was_killed(at_work, timeout):
    code = ORPHANED.format(timeout=timeout, command=COMMAND)
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(
        [sys.executable, "-c", code, at_work], stdout=subprocess.PIPE, env=env
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
    assert parent.returncode == -signal.SIGKILL
    assert gone(pid)


def test_a_worker_without_its_library_says_what_to_install():
    with Pool(timeout=1, command=(*COMMAND, "missing")) as pool:
        with pytest.raises(MissingDependency, match="math-verify is not installed"):
            pool.ask(ask("1"))
        assert not pool._all


def test_a_worker_that_does_not_start_is_named_and_leaves_its_place_free():
    with Pool(timeout=1, command=(sys.executable, "-c", "")) as pool:
        for _ in range(2):
            with pytest.raises(WorkerLost, match="did not start"):
                pool.ask(ask("1"))


def test_a_missing_package_is_said_before_anything_is_started(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install"):
        require_math_verify()
