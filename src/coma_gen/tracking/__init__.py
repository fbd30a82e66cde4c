"""MLflow as a mirror of the files that the stages wrote; the only importers of mlflow."""
