"""netprobe: a network probe that lives in an Airflow worker pod and says why a task cannot reach what it needs."""

__version__ = "0.1.0"
