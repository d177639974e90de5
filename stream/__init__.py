"""Events to profiles to scores: who is this person, and what do we offer."""
