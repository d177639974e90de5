"""Settings, topics, broker and releases: which model is live, and how it runs."""
