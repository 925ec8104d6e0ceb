"""Pure thinking: every decision of the house, without clock, chance or I/O.

Time, jitter and readings come in as arguments, so each decision is a table or a property test. The room imports no
asyncio, anyio, time, random, os, signal, socket, threading or logging; ``supervisors`` and ``brokers`` act on what is
decided here.
"""
