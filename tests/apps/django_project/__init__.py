"""A Django project with a Celery app, as Celery's documentation has it."""

from django_project.celery import app as celery_app

__all__ = ["celery_app"]
