"""One module for each figure of the paper, 1 to 9, and the plots users reuse. Nothing lives here yet."""
