"""Many completions in one task: rows in, results out (docs/design.md). No Airflow."""
