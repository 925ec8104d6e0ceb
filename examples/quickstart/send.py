"""Send tasks to the worker of this folder and print their results: from async code, and from sync code.

python send.py
"""

import asyncio
import time

from worker import add, app, busy, task1, task2

#: seconds that a result may take
RESULT_TIMEOUT_S = 10.0


async def from_async() -> None:
    """What an async program does: nothing here blocks its loop."""
    async with app:
        print("async  task1 →", await (await task1.enqueue()).get(RESULT_TIMEOUT_S))
        begun = time.perf_counter()
        handles = [await busy.enqueue(0.5) for _ in range(4)]
        print("async  4 × busy(0.5) →", [await handle.get(RESULT_TIMEOUT_S) for handle in handles], end=" ")
        print(f"in {time.perf_counter() - begun:.1f} s")
        # a task by its name; this program need not have its code
        print("async  worker.add →", await (await app.send("worker.add", (20, 22))).get(RESULT_TIMEOUT_S))
        try:
            await (await app.send("worker.add", (20, "22"))).get(RESULT_TIMEOUT_S)
        except TypeError as error:
            print("async  worker.add fails as it would here:", error)


def from_sync() -> None:
    """What a script or a Django view does."""
    print("sync   task1 →", task1.delay().get(RESULT_TIMEOUT_S))
    print("sync   task2 →", task2.delay("from sync code").get(RESULT_TIMEOUT_S))
    print("sync   add(2, 3) →", add.delay(2, 3).get(RESULT_TIMEOUT_S))
    print("a plain call, no worker: add(2, 3) →", add(2, 3))


if __name__ == "__main__":
    asyncio.run(from_async())
    from_sync()
