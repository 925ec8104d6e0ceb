"""The worker: consumers, intake, settlement, and the runtime that starts and stops them.

Modules:

    child_publisher    What children want published
    consumers          Which queues are consumed, and how much of each is here at once
    duplicate_name     Whether another worker on this broker has this worker's name
    intake             Delivery → admitted or not → a job for the pool
    redelivery         What the broker is told of messages, and what of that it may not have heard
    remote_control     Orders to this worker, from the control exchange: which tasks not to run, and whether it is there
    runtime            The worker: a pool with a broker in front of it, wired by hand
    settlement         Outcome → result stored, what follows published, message acknowledged; in that order
    state_file         The file in which a worker keeps what is revoked, over its own restart
"""
