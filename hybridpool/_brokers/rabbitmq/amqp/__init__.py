"""AMQP 0-9-1 itself: frames, methods and field tables, and the filter that takes frames from a connection.

Modules:

    codec           The few AMQP 0-9-1 frames that are read and written for every message
    frame_filter    Takes messages and confirmations out of a connection's bytes before the client library reads them
    table           Field tables
"""
