"""The loop: what a person should look at, and what was learned from it."""
