"""Benchmarks: each a module of its own, run by a Makefile target, that prints a table and writes ``bench/results``."""
