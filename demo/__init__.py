"""The pages people see; no training, no queue logic."""
