"""The search: many trainings of one config with other values of some fields, and the best of them."""
