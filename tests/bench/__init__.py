"""``make bench``: the figures that the product promises, measured on this machine, each beside its target."""
