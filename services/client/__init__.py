"""A client of the public REST API: `Client("http://localhost:8100", token).label_queue.get_tasks(state="DISPUTED")`."""

from services.client.client import Client, Refused

__all__ = ["Client", "Refused"]
