"""What a running sidecar says that it has loaded, beside what its profile's files say."""

import httpx2

from services.cli.components import folder_components
from services.cli.profiles import apps_of
from services.cli.stack import Stack


async def read_back(stack: Stack, app_id: str) -> tuple[dict[str, str], dict[str, str]]:
    """(name -> type/version) as loaded, and as the component files of this service's place have it."""
    port = stack.ports[f"{app_id.replace('-', '_')}_http"]
    headers = {"dapr-api-token": stack.secrets.dapr_api}
    async with httpx2.AsyncClient(headers=headers, trust_env=False) as client:
        metadata = (await client.get(f"http://127.0.0.1:{port}/v1.0/metadata")).json()
    place = next(place for place, app in apps_of(stack.settings.profile, stack.run_file) if app.app_id == app_id)
    files = folder_components(stack.settings.root / "components" / place.components)
    wanted = {
        one["metadata"]["name"]: f"{one['spec']['type']}/{one['spec']['version']}"
        for ones in files.values()
        for one in ones
        if app_id in one.get("scopes", [app_id])
    }
    return {one["name"]: f"{one['type']}/{one['version']}" for one in metadata["components"]}, wanted
