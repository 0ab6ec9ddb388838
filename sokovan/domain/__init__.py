"""What the words mean: values only, standard library only."""
