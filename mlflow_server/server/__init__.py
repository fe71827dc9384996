"""Launch MLflow's own app well."""
