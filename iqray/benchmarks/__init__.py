"""How fast iqray is beside what a user would otherwise run, at equal results."""
