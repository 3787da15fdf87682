"""`halfsure check`: is everything there that a profile needs where it is deployed?"""

import logging
import os
import re
from collections.abc import Iterator
from typing import Annotated

import typer

from services.cli import azure
from services.cli.components import environment, profile_faults
from services.cli.profiles import PROFILES, SITE, Place
from services.cli.settings import StackSettings
from services.cli.terminal import JsonOption, ProfileOption, app, fail, load_settings, out
from services.standins.entities import LOCK_SECONDS, MAX_DELIVERY, wanted

# Where one of these is set, the other need not be: a name for an identity, or a connection string.
EITHER = ({"HALFSURE_SERVICEBUS_NAMESPACE", "HALFSURE_SERVICEBUS_CONNECTION"},)
OPTIONAL = {"HALFSURE_POSTGRES_ENTRA", *(f"HALFSURE_ENTRA_{part}" for part in ("TENANT", "CLIENT", "CERTIFICATE"))}
# What the services themselves read, beside their components.
OWN = {
    "azure": {"HALFSURE_BLOBS": "the content of samples and models", "HALFSURE_TOKENS": "who may call"},
    "iotedge": {
        "HALFSURE_BLOBS": "the content on the device",
        "HALFSURE_CLOUD_BLOBS": "uplink: the content in the cloud",
        "HALFSURE_TOKENS": "who may call",
    },
}
FORMS = {
    "HALFSURE_SERVICEBUS_NAMESPACE": (r"[a-z0-9-]+\.servicebus\.\S+", "NAME.servicebus.windows.net"),
    "HALFSURE_SERVICEBUS_CONNECTION": (r"Endpoint=sb://.+", "Endpoint=sb://...;SharedAccessKeyName=...;..."),
    "HALFSURE_POSTGRES_CONNECTION": (r"(postgres(ql)?://|.*\bhost=).+", "host=... user=... dbname=... sslmode=require"),
    "HALFSURE_BLOBS": (
        r"(file:///|https?://[^/]+/)\S+",
        "file:///FOLDER or https://ACCOUNT.blob.core.windows.net/NAME",
    ),
    "HALFSURE_CLOUD_BLOBS": (r"https?://[^/]+/\S+", "https://ACCOUNT.blob.core.windows.net/NAME"),
    "HALFSURE_MQTT_URL": (r"(tcp|mqtts?|ssl|tls|tcps)://\S+", "tcp://HOST:1883"),
    "HALFSURE_REDIS_HOST": (r"\S+:\d+", "HOST:6379"),
    "HALFSURE_SITEID": (r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}", "a name of letters, digits, dots and dashes"),
}


@app.command()
def check(
    profile: ProfileOption = None,
    subscription: Annotated[
        str | None, typer.Option("--subscription", envvar="AZURE_SUBSCRIPTION_ID", help="Azure: the subscription's id.")
    ] = None,
    group: Annotated[
        str | None, typer.Option("--resource-group", envvar="AZURE_RESOURCE_GROUP", help="Azure: the resource group.")
    ] = None,
    site: Annotated[list[str] | None, typer.Option("--site", help="A device with an uplink; may be repeated.")] = None,
    json: JsonOption = False,
) -> None:
    """Say what is missing or wrong for a deployment: component files, settings, and in Azure resources and roles.

    Settings are looked for in this environment, as the services would find them. Exit code 1 if anything is missing.
    """
    settings = load_settings(None, profile)
    found = [*profile_faults(settings.root, settings.profile), *_settings(settings)]
    if settings.profile != "local":
        found += _azure(settings, subscription, group, site or ([SITE] if settings.profile == "iotedge" else []))
    if json:
        out.print_json(data={"ok": not found, "findings": found})
    else:
        for fault in found:
            fail(fault)
        if not found:
            out.print(f"All that the profile {settings.profile} needs is there.")
    if found:
        raise typer.Exit(1)


def _settings(settings: StackSettings) -> Iterator[str]:
    """The local profile's are made by `halfsure up`; a device's and the cloud's by whoever deploys."""
    if settings.profile == "local":
        return
    places = PROFILES[settings.profile]
    for place in [place for place in places if place.components == settings.profile]:
        yield from unset(environment(settings.root, place), OWN[settings.profile], dict(os.environ), place)


def unset(read: dict[str, list[str]], own: dict[str, str], given: dict[str, str], place: Place) -> Iterator[str]:
    """A sentence for each setting that is not there, or cannot be right. Values are not repeated: some are secret."""
    purposes = {name: " and ".join(fields) for name, fields in read.items()} | own
    said: set[str] = set()
    for name, purpose in purposes.items():
        value = given.get(name, "")
        if value:
            form, example = FORMS.get(name, (r"(?s).+", ""))
            if not re.fullmatch(form, value):
                yield f"{name} cannot be right: it looks like {example}"
        elif name not in OPTIONAL:
            others = next((pair - {name} for pair in EITHER if name in pair), set())
            if name in said or any(given.get(other) for other in others):
                continue
            said |= others
            instead = f" (or {', '.join(sorted(others))})" if others else ""
            yield f"{name}{instead} is not set: {purpose}"


def _azure(settings: StackSettings, subscription: str | None, group: str | None, sites: list[str]) -> Iterator[str]:
    if not subscription or not group:
        yield "resources and roles were not looked at: give --subscription and --resource-group"
        return
    try:
        from azure.core.exceptions import ClientAuthenticationError
        from azure.identity import DefaultAzureCredential
    except ImportError:
        yield "resources and roles were not looked at: pip install 'halfsure[azure]'"
        return
    logging.getLogger("azure.identity").setLevel(logging.ERROR)  # it warns of what is said below
    try:
        token = DefaultAzureCredential().get_token(azure.SCOPE).token
        found = azure.inventory(token, subscription, group)
    except ClientAuthenticationError as error:
        first = str(error).partition("\n")[0]
        yield f"resources and roles were not looked at: nobody is signed in to Azure (az login). {first}"
        return
    except azure.NotAllowed as error:
        yield f"resources and roles were not looked at: {error}"
        return
    topics = wanted(settings.root / "dapr" / "subscriptions.yaml", sites)
    container = os.environ.get("HALFSURE_BLOBS", "").partition("?")[0].rpartition("/")[2] or "halfsure"
    yield from azure.lacking(found, topics, container, LOCK_SECONDS, MAX_DELIVERY)
