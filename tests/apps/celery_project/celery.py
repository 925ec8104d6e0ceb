"""The app of the project."""

import os

from celery import Celery

app = Celery("celery_project", broker=os.environ["GUEST_BROKER"], include=["celery_project.tasks"])
app.conf.task_default_queue = os.environ["GUEST_QUEUE"]
