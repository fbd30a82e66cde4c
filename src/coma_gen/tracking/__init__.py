"""MLflow tracking: replicates the stages' output files in MLflow. Only this package imports mlflow."""
