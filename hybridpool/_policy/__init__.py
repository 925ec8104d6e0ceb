"""Pure decisions, without clock, chance or I/O.

Time, jitter and readings come in as arguments, so each decision is tested by a table or by properties. This package
imports no asyncio, anyio, time, random, os, signal, socket, threading or logging; `_lanes`, `_worker` and `_brokers`
act on what is decided here.

Modules:

    admission           Whether a message is run, and if not, why
    allowance           How much of something may be used up: so much at once, and more as time goes by
    autoscale           How large the pool should be
    backoff             How long to wait before the next attempt
    consumer_timeout    Tasks that may run longer than the broker waits for their acknowledgement (RabbitMQ's
                        consumer_timeout)
    content             How the bytes of a body are to be read
    deadline            What is due for the call at work in a child
    death_blame         Which calls answer for a death that took more than one child
    fallback            What follows when the broker does not take a step of settlement
    headroom            How far a pool may grow before memory gets scarce
    ledger              The acknowledgement ledger of one channel
    lifecycle           The life of a child as a table: state × what happened → next state
    pipelining          How many calls may be in a child's channel at once
    prefetch            How many messages of a queue a worker holds, running ones included
    reconcile           How many children to fork, which to retire, which have taken too long to be born
    recycle             When a child has served enough: by count of tasks, by memory of its own, by age
    redelivery          What may be delivered again though it was dealt with here, because a connection was lost at the
                        wrong moment
    retry               When a task that failed is run again
    revoked             Which tasks must not be run any more: a memory of ids, bounded in number, in bytes and in time
    settlement          What follows from an outcome, in order; the acknowledgement comes last
"""
