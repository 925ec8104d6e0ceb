"""The worker: takes messages from the broker, runs their tasks in a lane, settles them.

`runtime` builds the parts, starts and stops them. A message's way: `consumers` → `intake` → the lane → `settlement`.
"""
