"""Settings of the project."""

import os

SECRET_KEY = "not secret"  # of a test
INSTALLED_APPS = ["django_project.shop"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DJANGO_DATABASE"]}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
CELERY_BROKER_URL = os.environ["GUEST_BROKER"]
CELERY_RESULT_BACKEND = os.environ["GUEST_BACKEND"]
CELERY_TASK_DEFAULT_QUEUE = os.environ["GUEST_QUEUE"]
CELERY_WORKER_CONCURRENCY = 2
