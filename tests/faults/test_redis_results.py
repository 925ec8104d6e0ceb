"""A worker whose results go to Redis, while that is killed, full, or refuses."""

import signal
from pathlib import Path

import pytest
import redis as redis_client

from hybridpool import App
from tests.faults.helpers import depth_of
from tests.rabbit import Node, wait_for
from tests.redis_server import Redis
from tests.workers import PATIENCE, Worker, gate_in
