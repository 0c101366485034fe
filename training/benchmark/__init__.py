"""Benchmarks: declared plans of runs, their records, and the pages that are printed from them."""
