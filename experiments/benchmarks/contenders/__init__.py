"""What the package is timed against. All of it plays and learns as the package does."""
