"""Many completions in one go: rows in, results out. No Airflow."""
