"""Messages go out, and not in: whatever a name leads to, and whenever."""

import itertools
from collections.abc import Sequence

import pytest

from services.runtime.outward import Inward, pinned

PUBLIC = "93.184.215.14"


def leading(*answers: Sequence[str]):
    """A name that leads to each of these in turn, and then to the last."""
    turns = itertools.chain(answers, itertools.repeat(answers[-1]))

    async def resolve(host: str, port: int) -> Sequence[str]:
        return next(turns)

    return resolve


async def test_a_public_name_is_gone_to_by_its_address_and_seen_by_its_name() -> None:
    found = await pinned("https://hooks.example:8443/a?b=c", resolve=leading([PUBLIC]))
    assert found.url == f"https://{PUBLIC}:8443/a?b=c"
    assert (found.headers, found.extensions) == (
        {"host": "hooks.example:8443"},
        {"sni_hostname": "hooks.example"},
    )
    six = await pinned("http://hooks.example/", resolve=leading(["2606:2800:21f:cb07::1"]))
    assert six.url == "http://[2606:2800:21f:cb07::1]:80/"


PRIVATE = ["127.0.0.1", "10.0.0.7", "192.168.1.1", "172.16.0.1", "100.64.0.1", "::1", "fd00::1", "::ffff:127.0.0.1"]
NEVER = ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1%eth0", "fd00:ec2::254", "0.0.0.0", "224.0.0.1"]


@pytest.mark.parametrize("address", [*PRIVATE, *NEVER])
async def test_a_name_does_not_lead_inside(address: str) -> None:
    for answers in ([address], [PUBLIC, address]):
        with pytest.raises(Inward):
            await pinned("https://hooks.example/", resolve=leading(answers))


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fe80::1]", "0.0.0.0", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"]
)
async def test_nothing_leads_to_metadata_even_when_it_is_written_down(host: str) -> None:
    for inside in (False, True):
        with pytest.raises(Inward):
            await pinned(f"http://{host}/latest/meta-data/", inside=inside)
    with pytest.raises(Inward):
        await pinned("http://metadata.example/", inside=True, resolve=leading(["169.254.169.254"]))


async def test_a_name_that_changes_its_mind_is_asked_once() -> None:
    """DNS rebinding: what was judged is what is connected to."""
    resolve = leading([PUBLIC], ["127.0.0.1"])
    assert PUBLIC in (await pinned("https://hooks.example/", resolve=resolve)).url
    with pytest.raises(Inward):
        await pinned("https://hooks.example/", resolve=resolve)


async def test_what_is_written_down_as_an_address_is_meant() -> None:
    assert (await pinned("http://127.0.0.1:8109/x")).url == "http://127.0.0.1:8109/x"
    assert (await pinned("http://localhost:8109/x", resolve=leading(["127.0.0.1"]))).url == "http://127.0.0.1:8109/x"
    inside = await pinned("http://trainer.lab/x", inside=True, resolve=leading(["10.0.0.7"]))
    assert inside.url == "http://10.0.0.7:80/x"
