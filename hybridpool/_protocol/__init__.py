"""Celery's formats: message protocol 2, results. Bytes ⇄ values, no I/O; one format in and out.

head      a task message's headers → `Head`
request   a call → the message a client sends
reply     an outcome → result meta, and back
dead      what is written on a message that goes to a dead-letter queue, or around again
"""
