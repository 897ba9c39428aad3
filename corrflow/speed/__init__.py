"""How fast the parts are, beside the released formulation and beside what the machine can do."""
