"""Named pipes for coroutines."""

import asyncio
import os
from pathlib import Path


async def take_byte(pipe: str | Path) -> None:
    """Wait for a byte of a named pipe, and take it; others run meanwhile, and may wait for the next one."""
    loop, fd = asyncio.get_running_loop(), os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        while True:
            readable = asyncio.Event()
            loop.add_reader(fd, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(fd)
            try:
                if os.read(fd, 1):
                    return
            except BlockingIOError:
                # Another one was quicker.
                continue
    finally:
        os.close(fd)
