"""The search: Ray Tune and Optuna over `infosam` runs, tracked in MLflow, with one champion per domain."""
