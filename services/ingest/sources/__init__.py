"""What feeds ingest without a client being written: one module a kind, each an `async def run(source, door)`."""
