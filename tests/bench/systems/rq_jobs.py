"""RQ as it comes: a worker that forks for each job, and one that does not."""

import sys

from redis import Redis
from rq import Queue, SimpleWorker, Worker

from tests.bench.systems.starter import begin, serve


def job() -> None:
    """Say that it began."""
    begin()


if __name__ == "__main__":
    role, kind, url = sys.argv[1:]
    redis = Redis.from_url(url)
    if role == "client":
        queue = Queue(kind, connection=redis)
        serve(lambda: queue.enqueue("tests.bench.systems.rq_jobs.job"))
    else:
        (Worker if kind == "fork" else SimpleWorker)([kind], connection=redis).work()
