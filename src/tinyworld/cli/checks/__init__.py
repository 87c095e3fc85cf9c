"""What `tinyworld check` finds out, family by family."""
