"""A stage that samples by a formula, and a judge that is a real HTTP server on this machine."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from mstar.analysis.asking import Ask
from mstar.analysis.whole import analyse
from mstar.core.records import Finish, Grade, Response, Scored
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.tables import TableWriter
from mstar.tasks import task_hash


def response(query, sample, *, right, steps, score, temperature=1.0):
    """One scored response of ``steps`` lines, the last with the answer."""
    lines = [f"line {number} of sample {sample}" for number in range(1, steps)]
    text = "\n".join([*lines, f"\\boxed{{{int(right)}}}"])
    return Scored(
        response=Response(
            query_id=query,
            sample=sample,
            text=text,
            tokens=tuple(range(2 * steps)),
            finish=Finish.STOP,
            temperature=temperature,
            policy="p",
            seed=sample,
        ),
        grade=Grade(answer=str(int(right)), correct=right),
        step_scores=(1.0, score) if score is not None else (),
    )


def group(query, count, number=0):
    """Samples of one query: even ones right, the earlier the shorter and the better liked."""
    return [
        response(
            query,
            sample,
            right=(sample + number) % 2 == 0,
            steps=1 + sample,
            score=1 - (sample + 1) / (count + 1),
        )
        for sample in range(count)
    ]


def sampling(store, scratch):
    """A stage for evaluations that samples by ``group``."""

    def work(job):
        task = job.task
        ids = [f"{task.slice.split}-{index}" for index in range(task.slice.count)]
        found = [
            response(query, 0, right=number % 3 == 0, steps=1, score=None, temperature=0.0)
            for number, query in enumerate(ids)
        ]
        for number, query in enumerate(ids):
            found += group(query, task.samples, number)
        path = scratch / f"{job.attempt}.parquet"
        with TableWriter(path, Scored) as table:
            table.write(found)
        with ArtifactWriter(store, task_hash(task), job.attempt) as writer:
            writer.add_file("scored.parquet", path, rows=len(found))
            writer.commit(results={"queries": len(ids)})

    return work


def analysed(store, name, executor, *, judge=None, generator=None, **ask):
    return analyse(
        store,
        name,
        Ask(**ask),
        executor=executor,
        generator=generator,
        judge=judge,
        watch=lambda _: nullcontext(lambda *_: None),
    )


Outcome = tuple[int, dict[str, str], bytes]
"""A reply: status, headers, body."""


class Script:
    """What the judge does, request by request: a function of the body that gives its outcome, or None.

    None closes the connection without a word. ``seen`` has every request's body and headers.
    """

    def __init__(self, answer):
        self.answer = answer
        self.seen = []
        self.lock = threading.Lock()


def completion(text):
    """A chat completion that says ``text``."""
    body = {"choices": [{"message": {"role": "assistant", "content": text}}]}
    return 200, {}, json.dumps(body).encode()


def scoring(body):
    """A good judge: the fewer lines a solution has, the better."""
    solution = body["messages"][-1]["content"].partition("Solution:\n")[2]
    return completion(f"It is to the point.\nScore: {max(1, 10 - solution.count(chr(10)))}")


@contextmanager
def judge(answer=scoring) -> Iterator[tuple[str, Script]]:
    """A server that answers as the script says; its base address."""
    script = Script(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with script.lock:
                script.seen.append((self.path, body, dict(self.headers)))
            outcome = script.answer(body)
            if outcome is None:
                self.close_connection = True
                return
            status, headers, data = outcome
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            with suppress(BrokenPipeError, ConnectionResetError):  # who asked may have given up
                self.end_headers()
                self.wfile.write(data)

        def log_message(self, *arguments):
            """Tests read what was seen, not a log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", script
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def slowly(seconds, answer=scoring):
    """A judge that takes its time."""

    def late(body):
        time.sleep(seconds)
        return answer(body)

    return late
