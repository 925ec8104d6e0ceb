"""The zygote: the process that imports the app and forks every child. `client` is the parent's side of it.

Modules:

    bootstrap      The first code of a zygote: finds the library where the parent found it, then the parent's modules
    client         The zygote as the parent sees it: a process to start, a socket for orders, and news of children
    interpreter    Starts another process of this interpreter, with the same options, library and folders of modules
    loader         Finds the app by the name given on the command line, and describes why it cannot be found or imported
    server         The zygote: one clean process that imports the app, freezes it, and forks every child
"""
