"""Speeds as ratios measured in one run: `make bench`. Results stand in docs/results.md."""
