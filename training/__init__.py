"""From data set to measured weights: prepare, train, evaluate, predict, benchmark."""
