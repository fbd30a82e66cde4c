"""MLflow as a replica of the files that the stages wrote; the only importers of mlflow."""
