"""Pure decisions, without clock, chance or I/O.

Time, jitter and readings come in as arguments, so each decision is tested by a table or by properties. This package
imports no asyncio, anyio, time, random, os, signal, socket, threading or logging; `_lanes`, `_worker` and `_brokers`
act on what is decided here.

Modules:

    admission           Decides whether a message is run, and if not, why
    allowance           A token bucket: a capacity that is used up, and refilled at a steady rate
    autoscale           Decides how large the pool should be
    backlog             Decides when a worker takes no more messages, because too much of what it has done waits to be
                        stored or sent
    backoff             How long to wait before the next attempt
    consumer_timeout    Tasks that may run longer than the broker waits for their acknowledgement (RabbitMQ's
                        consumer_timeout)
    content             How a body is to be decoded, from its content type, content encoding and compression
    death_blame         Decides which calls are blamed for the death of a zygote, which kills all children
    death_of_shared     Decides what becomes of the calls of a child that ran several at once, when it died
    event_buffer        Events that wait to be sent: bounded in bytes
    fallback            What follows when the broker does not take a step of settlement
    finishing           How many children of another library's app record how tasks ended, where no child could record
                        it
    guest_settlement    The steps that follow from an outcome of another library's app, which has done all but answer
                        the broker
    headroom            Decides how far a pool may grow before memory gets scarce
    lamport_clock       A logical clock (Lamport): orders what several workers tell, whatever their clocks say
    lane_shares         How the lanes of a worker share the prefetch of a queue
    ledger              The acknowledgement ledger of one channel
    lifecycle           The states of a child as a table: state × event → next state
    pace                How many messages of a queue to hold, from how long its tasks take
    pipelining          How many calls may be sent to a child before it has answered the first
    prefetch            How many messages of a queue a worker holds, running ones included
    rate_limit          Decides when a call of a task with a rate limit may start, and where its message waits until
                        then
    reconcile           How many children to fork, which to retire, which take too long to be ready or to exit
    recycle             Decides when a child is replaced: by its number of tasks, its own memory, or its age
    redelivery          Which messages the broker may deliver again although they were run here
    retry               Decides when a task that failed is run again
    revoked             The ids of revoked tasks, which must not be run; bounded in number, bytes and time
    settlement          The steps that follow from an outcome, in order; the acknowledgement comes last
    shared_limits       What is due for a call that runs beside others in one child, by its time limits
    time_limits         What is due for the call that a child runs, by its time limits
    waiting_advice      Finds functions that only wait while they hold a child which other calls wait for
"""
