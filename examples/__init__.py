"""Use cases that run: each folder is one, with its data and its `usecase.toml`."""
