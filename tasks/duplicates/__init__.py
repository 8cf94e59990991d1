"""Finding pictures that are the same: candidates by hash, verified by registering thumbnails."""
