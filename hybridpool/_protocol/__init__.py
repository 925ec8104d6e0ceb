"""Celery's formats: message protocol 2 and results. Bytes ⇄ values, without I/O.

Modules:

    chord_message       A chord of Celery's client
    dead_letter         Messages that are written again
    dead_letter_view    A dead letter, as its headers describe it
    protocol_one        Celery's message protocol 1, which has all fields in the body
    queues              How queues of tasks are declared
    remote_control      Orders to workers
    result_message      An outcome → result meta, and back (Celery, `celery.backends.base`)
    task_headers        The head of a task message: Celery message protocol 2, `application_headers`
    task_message        A call → the message a client sends (Celery message protocol 2, `celery.app.amqp.as_task_v2`)
"""
