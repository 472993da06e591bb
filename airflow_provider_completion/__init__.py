"""Run text-generation ("completion") apps from Airflow."""

__version__ = "0.1.0"
