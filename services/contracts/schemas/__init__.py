"""Golden JSON Schemas, one an event type: `python -m services.contracts.schemas` writes those that are new."""
