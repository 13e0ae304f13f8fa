"""qanat carries network flows."""
