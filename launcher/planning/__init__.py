"""A submission, decided and checked before anything starts."""
