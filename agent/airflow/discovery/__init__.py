"""Targets from the environment of an Airflow pod: no configuration needed."""
