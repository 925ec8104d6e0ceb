"""Result stores: `base` is the port; `rpc` sends each result to the client that asked for it.

Modules:

    base    The result port: the worker's side writes, the client's side waits
    rpc     rpc://
"""
