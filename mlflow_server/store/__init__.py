"""What operations share about the backend store. Nothing here constructs an MLflow store."""
