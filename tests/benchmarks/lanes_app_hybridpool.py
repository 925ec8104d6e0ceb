"""The tasks of the benchmark of lanes as tasks of ours, in the lane that the environment names, or in two."""

import os

from hybridpool import App
from tests.benchmarks import lanes_work
from tests.benchmarks import worker_work as work

app = App("bench", broker=os.environ[work.BROKER], task_default_queue=os.environ[work.QUEUE])
if os.environ[lanes_work.LANE] == "thread":
    app.task(name="linger", lane="thread")(work.linger)
else:
    if os.environ[lanes_work.LANE] == "mixed":
        app.task(name="spin")(work.spin)
    for _name in ("nothing", "rest", "hold"):
        app.task(name=_name, queue=os.environ.get(lanes_work.ASIDE))(lanes_work.COROUTINES[_name])
    if os.environ[lanes_work.LANE] == "async":
        app.task(name="outstay", soft_time_limit=lanes_work.LIMIT)(lanes_work.outstay)
        app.task(name="outlast", time_limit=lanes_work.LIMIT)(lanes_work.outstay)
