"""Features, network, training and scoring: how good is this for them."""
