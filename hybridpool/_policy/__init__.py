"""Decisions as pure functions, without clock, random numbers or I/O.

Time, jitter and readings are arguments, so each decision has a table or a property test. The package does not import
asyncio, anyio, time, random, os, signal, socket, threading or logging; lanes, worker and brokers act on the decisions.
"""
