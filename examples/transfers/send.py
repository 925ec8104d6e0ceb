"""Send transfers at an even pace, and tell how long they waited for the worker.

python send.py                                       60 transfers of 5 s, one a second
python send.py --count=600 --seconds=5 --every=0.1   ten a second
"""

import argparse
import asyncio
import time

import httpx
from worker import STORAGE_URL, app, transfer

from hybridpool import Handle

#: seconds that a result may take after the last transfer's own
RESULT_TIMEOUT_S = 30.0


async def main(count: int, seconds: float, every: float) -> None:
    """Send, wait for all results, and print."""
    sent: list[float] = []
    handles: list[Handle[tuple[float, int]]] = []
    async with app:
        # opens the connections of this program and of the worker
        await (await transfer.enqueue("first", 0.0)).get(RESULT_TIMEOUT_S)
        first = time.time()
        for number in range(count):
            await asyncio.sleep(first + number * every - time.time())
            sent.append(time.time())
            handles.append(await transfer.enqueue(f"object-{number}", seconds))
        found = [await handle.get(seconds + RESULT_TIMEOUT_S) for handle in handles]
    took = time.time() - first
    ends = [began + seconds for began, _ in found]
    at_once = max(sum(other <= began < end for (other, _), end in zip(found, ends, strict=True)) for began, _ in found)
    waited = sorted(1000 * (began - moment) for (began, _), moment in zip(found, sent, strict=True))
    async with httpx.AsyncClient() as client:
        seen = (await client.get(f"{STORAGE_URL}/store")).json()
    print(f"sent         {count} transfers of {seconds:g} s, one every {every:g} s")
    print(f"stored       {seen['stored'] - 1} objects, {sum(size for _, size in found) / 2**20:g} MiB")
    print(f"took         {took:.1f} s; one after the other they take {count * seconds:g} s")
    print(f"at once      {at_once}, over {seen['connections']} connections for {2 * count + 2} requests")
    print(f"waited       {waited[len(waited) // 2]:.0f} ms in the middle, {waited[-1]:.0f} ms at most")


if __name__ == "__main__":
    reader = argparse.ArgumentParser(description="Send transfers.")
    reader.add_argument("--count", type=int, default=60)
    reader.add_argument("--seconds", type=float, default=5.0, help="what one transfer takes")
    reader.add_argument("--every", type=float, default=1.0, help="seconds from one to the next")
    options = reader.parse_args()
    asyncio.run(main(options.count, options.seconds, options.every))
