"""Recipes: a typed schema, YAML files that extend each other, flags over them, and rules checked before any work.

Nothing here imports torch, so a login node can check a recipe.
"""
