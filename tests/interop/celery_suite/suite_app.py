"""The app of Celery's integration suite, as an external worker runs it: the settings of its conftest."""

import os

from celery import Celery

app = Celery("celery.tests")
app.conf.update(
    broker_url=os.environ["TEST_BROKER"],
    result_backend=os.environ["TEST_BACKEND"],
    result_extended=True,
    task_create_missing_queues=False,
    imports=("t.integration.tasks", "celery.contrib.testing.tasks"),
    accept_content=["json"],
)

from t.integration.tasks import ClassBasedAutoRetryTask  # type: ignore[import-not-found]  # noqa: E402  # its module uses the current app

app.register_task(ClassBasedAutoRetryTask)
