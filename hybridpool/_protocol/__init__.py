"""Celery's formats: message protocol 2, results, remote control. Bytes ⇄ values, without I/O.

task_headers      the headers of a task message → `Head`
task_message      a call → the message a client sends
result_message    an outcome → result meta, and back
dead_letter       a message written again: for a dead-letter queue, or for another attempt
dead_letter_view  a dead letter, as its headers describe it
remote_control    orders to workers, and their answers
queues            how queues of tasks are declared
"""
