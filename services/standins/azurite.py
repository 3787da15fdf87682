"""Runs Azurite, Microsoft's stand-in for Blob Storage, and makes the container as soon as it answers.

python -m services.standins.azurite --container http://127.0.0.1:8193/ACCOUNT/CONTAINER -- azurite-blob ...
"""

import argparse
import os
import time
from collections.abc import Sequence

from azure.core.exceptions import AzureError, ResourceExistsError
from azure.storage.blob import ContainerClient

from services.cli.backing import ACCOUNT, KEY


def make_container(url: str, server: int) -> None:
    """Tries for as long as the process `server` is this one's parent: on a busy machine it may take minutes."""
    credential = {"account_name": ACCOUNT, "account_key": KEY}
    client = ContainerClient.from_container_url(url, credential=credential, retry_total=0, connection_timeout=1)
    while os.getppid() == server:
        try:
            client.create_container()
            return
        except ResourceExistsError:
            return
        except AzureError:
            time.sleep(0.1)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="azurite", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--container", required=True)
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    # The server takes over this process, so that whoever ends it ends the server.
    server = os.getpid()
    if os.fork() == 0:
        make_container(options.container, server)
        os._exit(0)
    os.execvp(options.command[0], options.command)


if __name__ == "__main__":
    main()
