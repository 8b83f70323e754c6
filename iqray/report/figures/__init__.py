"""Figures of the report, each a function from finished tables to a matplotlib Figure."""
