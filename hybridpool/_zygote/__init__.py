"""The zygote: the process that imports the app and forks every child. `client` is the parent's side of it.

Modules:

    bootstrap      The first code of a zygote
    client         The zygote as the parent sees it: a process to start, a socket for orders, and news of children
    interpreter    How another process of this interpreter is started
    loader         Find the app by the name given on the command line, and put into words what is wrong when it is not
                   there
    server         The zygote: one clean process that imports the app, freezes it, and forks every child
"""
