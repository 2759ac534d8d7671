"""The same colour for the same thing in every picture; a bound has its own (`ladder`)."""

COLOURS = {
    "test": "black",
    "train": "tab:gray",
    "train_term": "tab:blue",
    "complexity": "tab:green",
    "rest": "tab:red",
    "guess": "tab:gray",
}
