"""How parent, zygote and children talk: frames, their framing, the shared page, large objects in memory files."""
