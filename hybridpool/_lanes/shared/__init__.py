"""The lanes whose children run several calls at once: coroutines on an event loop, functions on threads.

Modules:

    child_handle    A child that runs several calls at once, as the parent sees it: its calls end in any order
    dispatcher      The dispatcher of a lane whose children run several calls at once: which child gets which call
    lane            A lane whose children run several calls at once: `async` (on an event loop) or `thread`
    options         What a lane whose children run several calls at once is told at its start
    watchdog        The watchdog of a lane whose children run several calls at once
"""
