"""Acting: one small async loop per policy. Look, ask the policy, act, wait until something changes."""
