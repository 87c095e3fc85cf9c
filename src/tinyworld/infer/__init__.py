"""Use of trained models on files. Knows models, metrics and media; needs no training code."""
