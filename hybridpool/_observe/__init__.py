"""Listeners on the bus of events: the log, and what it is written to.

Modules:

    log           The log: observed in words, in Celery's words where it has some (operators grep for them)
    log_file      The file that the log is appended to, known by its name: one that is rotated is followed
    log_sink      Where log lines go: one descriptor, one writer, whole lines, one write per turn of the loop
    stacks        Where this process is at this moment, in words: the stacks of its threads and of its asyncio tasks
    task_lines    The two lines that every task costs, written past `logging`
"""
