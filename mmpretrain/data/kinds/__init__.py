"""From bytes to objects, one file per form that members have; named by the rows of config/kind.py."""
