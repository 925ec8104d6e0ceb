"""Result stores: `base` is the port; `rpc` sends each result to the client that asked for it, `redis` keeps them.

Modules:

    base       The result port: the worker's side stores results, the client's side waits for them
    factory    Result backends by the setting `result_backend`; each adapter is imported only when it is chosen
    redis      Results in Redis, in Celery's format (`celery.backends.redis`)
    rpc        rpc://
"""
