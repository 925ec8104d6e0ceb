"""Faces that listen to the Bus. The pipeline does not know that they exist."""
