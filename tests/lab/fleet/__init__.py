"""A fleet: thirty pods of ten DAGs in a world of the fault lab, each a real agent, and what watches them.

Prometheus finds, scrapes and labels the pods by the configuration that is shipped, evaluates the rules that are
shipped, and tells Alertmanager, which tells a webhook.
"""
