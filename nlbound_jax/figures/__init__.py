"""One module a figure of the paper, 1 to 9, and the plots users reuse. Empty so far."""
