"""A project with its Celery app where Celery's own documentation has it: `celery_project/celery.py`."""
