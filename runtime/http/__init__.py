"""The edge: HTTP in front of the couriers and the admin API."""
