"""Faults met by a run of several processes, made on purpose: every one ends as docs/failures.md says."""
