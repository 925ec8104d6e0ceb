"""AMQP 0-9-1 itself: frames, methods and field tables, and the filter that takes frames from a connection.

Modules:

    codec           The few AMQP 0-9-1 frames that are read and written for every message
    frame_filter    The way in and out for what passes once per message, beside the client library
    methods         What is asked of the broker about queues and exchanges, by names of any characters
    table           Field tables
"""
