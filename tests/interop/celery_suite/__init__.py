"""Celery's own integration suite, against workers that run as programs: ours, and Celery's for comparison.

    python -m tests.interop.celery_suite                     both, with Redis and over rpc; asserts the bars
    python -m tests.interop.celery_suite ours redis -k chord a part, without bars; words after the names go to pytest
    python -m tests.interop.celery_suite recycle             three children of ours, replaced after every third task
    python -m tests.interop.celery_suite mixed               a worker of ours and one of Celery's on the same queue
    python -m tests.interop.celery_suite smoke               scenarios of Celery's smoke tests, see `smoke`

The suite comes from the source distribution of the installed Celery, into .venv.
"""
