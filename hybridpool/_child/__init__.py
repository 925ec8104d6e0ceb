"""What runs in a child: synchronous code in one thread.

It imports the standard library, msgspec and `hybridpool.errors` only, as a fork shares with a child all that the zygote
has imported.

    entry              from the fork to READY
    loop               reads a call, runs it, answers
    channel            the child's end of its socket to the parent
    execute            bytes → arguments → the task → outcome
    functions          calls of functions for a pool without a broker
    failure_rules      what follows from a task's failure
    program            the interface of an app towards zygote and children
    rendering          values and exceptions as text
    printable          escapes in untrusted text
    log_forwarding     log records and prints, sent to the parent
    text_streams       sys.stdout and sys.stderr of tasks
    memory             how much memory a child owns itself
    process_state      signals, timers and limits, restored after calls
    process_isolation  process groups, signals, death of the parent
"""
