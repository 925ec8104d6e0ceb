"""Listeners on the bus of events: the log, and what it is written to.

Modules:

    log           The log
    log_file      The file to which the log is appended; when it is rotated, the file of that name is opened again
    log_sink      Writes log lines to one descriptor: whole lines, one write per turn of the loop
    task_lines    The two log lines of every task, written past `logging`, where a record costs as much as handing over
                  a task
"""
