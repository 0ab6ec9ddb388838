"""Where agents live, and how the manager reaches them."""
