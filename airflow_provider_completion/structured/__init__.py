"""Answers as data: the one JSON value that an answer holds, and what ``output_type`` asks of it. No Airflow."""
