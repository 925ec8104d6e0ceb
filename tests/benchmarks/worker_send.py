"""Send one call with a system's own client.

python -m tests.benchmarks.worker_send MODULE TASK     its arguments on stdin, as a Python list
"""

import ast
import importlib
import sys

if __name__ == "__main__":
    importlib.import_module(sys.argv[1]).send(sys.argv[2], *ast.literal_eval(sys.stdin.read()))
