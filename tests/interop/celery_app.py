"""The Celery application of test_celery.py, imported by the worker process and by the test."""

import os

from celery import Celery


def make(url, queue):
    """Results come back through the rpc backend: a reply queue per client, on the same broker."""
    app = Celery("interop", broker=url, backend="rpc://")
    app.conf.update(
        task_default_queue=queue,
        task_default_exchange=queue,
        task_default_routing_key=queue,
        result_expires=60,
        broker_connection_retry_on_startup=False,
        broker_connection_timeout=5,
    )

    @app.task(shared=False, name="interop.add")
    def add(x, y):
        return x + y

    @app.task(shared=False, name="interop.fail", throws=(ValueError,))  # no traceback is logged
    def fail(text):
        raise ValueError(text)

    @app.task(shared=False, name="interop.echo")
    def echo(value):
        return value

    @app.task(shared=False, name="interop.second_try", bind=True, max_retries=2)
    def second_try(self):
        if self.request.retries == 0:
            raise self.retry(countdown=0)
        return (self.request.retries, self.request.delivery_info["routing_key"])

    @app.task(shared=False, name="interop.late", bind=True, acks_late=True)
    def late(self):
        return self.request.delivery_info["redelivered"]

    return app


if "INTEROP_BROKER_URL" in os.environ:  # the worker process
    app = make(os.environ["INTEROP_BROKER_URL"], os.environ["INTEROP_QUEUE"])
