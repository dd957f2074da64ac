"""Pure functions of features. Importing this package loads no torch."""
