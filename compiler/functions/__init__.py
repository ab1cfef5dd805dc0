"""Elementary functions in the words of `ops.scalar`: bodies that every back end can take."""
