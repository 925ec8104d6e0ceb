"""What runs in a child process: sync, single-threaded, with few imports.

This package imports the standard library, msgspec, `hybridpool._ipc` and `hybridpool.errors` only, because a fork gives
a child everything that its parent has loaded.

Modules:

    async_loop           A child that runs coroutines: one event loop, many calls on it
    channel              A child's end of its channel
    concurrent_child     What children that run several calls at once have in common
    entry                From fork to READY, and from the last call to the exit
    execute              One call: bytes → arguments → the function → outcome
    failure_rules        What a task's options say about its failures, and what follows from them in the child
    functions            Calls of plain functions, for a pool without a broker
    lifespans            Lifespans: what a child opens once, before its first call, and closes after its last
    log_config           `worker_logging`
    log_formats          How a record of `logging` becomes text, in the parent and in children
    log_forwarding       Forwards what user code logs and prints to the parent, as whole formatted lines
    loop                 A child's loop
    memory               How much memory a child owns itself
    printable            Escapes in untrusted text for a log and a terminal
    process_isolation    Keeps processes from outliving each other
    process_state        The state of the process, which all calls of a child share
    program              The interface of an app towards the zygote and the children
    protocol             The child's side of its protocol, without I/O
    rendering            Values and exceptions as text: for the log, for result metas, for tracebacks
    stacks               The stacks of this process, parent or child: of its threads and of its asyncio tasks, as text
    text_streams         sys.stdout and sys.stderr of a task: real text streams whose lines become records of the log
    thread_loop          A child that runs functions on threads: the main thread reads the channel, the others run calls
"""
