"""The worker: consumers, intake, settlement, and what starts and stops them (`runtime`)."""
