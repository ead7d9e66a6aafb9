"""Models behind a chat endpoint: they play, what they said is kept, and they are tuned on the best of it."""
