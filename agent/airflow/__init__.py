"""What netprobe knows of Airflow: whose pod this is, what its environment names, how a pod gets the sidecar.

Known to `cli.py` and `app.py` alone: whatever probes, explains and exports works without Airflow.
"""
