"""AMQP 0-9-1 itself: frames, methods and field tables, and the filter that takes frames from a connection."""
