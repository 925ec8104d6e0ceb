"""The other side of the fork: sync, single-threaded, importing next to nothing.

This room imports the standard library, msgspec and `hybridpool.errors` only, because a fork hands a child all that its
parent holds. The parent reads `frames` and `wire` from here, since both ends must agree on them.

    frames    the words between parent, zygote and children
    wire      how a message of frames crosses a socket
    zygote    imports the app once, forks children on request, reaps them
    load      finds the app by its name
    birth     from fork to READY
    protocol  what to do next, as an object without I/O
    loop      does it: reads a call, runs it, answers
    payload   bytes ⇄ arguments and results
    forwarder     what user code logs and prints, in whole lines
    printable text of strangers, fit for a log and a terminal
    context   what a task can know about itself
    memory    what a child owns itself, unshared
    guard     process group, signals, death of the parent
"""
