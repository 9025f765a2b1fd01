"""How runs are shown to people: on pages, in the admin, on a terminal."""
