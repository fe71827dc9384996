"""A deployable MLflow tracking server with everything a team needs to run it for years."""

__version__ = "1.0.0"
