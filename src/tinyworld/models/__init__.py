"""Networks. The families never import each other."""
