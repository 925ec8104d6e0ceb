"""What makes the fat app fatter: some 18 MB of small objects."""

BALLAST = [[number] for number in range(150_000)]
