"""One module per kind of data set."""
