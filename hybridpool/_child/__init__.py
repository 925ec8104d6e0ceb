"""What runs in a child process: sync, single-threaded, with few imports.

This package imports the standard library, msgspec, `hybridpool._ipc` and `hybridpool.errors` only, because a fork gives
a child everything that its parent has loaded.

Modules:

    channel              A child's end of its channel
    entry                From fork to READY, and from the last call to the exit
    execute              One call: bytes → arguments → the function → outcome
    failure_rules        What a task's options say about its failures, and what follows from them in the child
    functions            Calls of plain functions, for a pool without a broker
    log_forwarding       What user code logs and prints
    loop                 The life of a child: take a call, run it, answer; until the channel ends
    memory               How much memory a child owns itself
    printable            Text that a stranger chose, made fit for a log and a terminal
    process_isolation    What keeps processes from outliving each other
    process_state        What the calls of a child share, whether they want to or not: the state of their process
    program              What the zygote and the children need of an app
    rendering            Values and exceptions in words: for the log, for result metas, for tracebacks
    text_streams         sys.stdout and sys.stderr of a task: real text streams whose lines become records of the log
"""
