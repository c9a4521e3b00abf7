"""Configuration: schema, loading with every error at once, discovery from the environment, prices."""
