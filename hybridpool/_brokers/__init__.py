"""Where messages come from and go to. `base` is the port; each adapter passes tests/contract/test_broker.py."""
