"""ONVIF (row 4.8): a camera found by WS-Discovery gives its RTSP address. The camera is a stand-in that really answers
UDP multicast on loopback, and SOAP over HTTP; in test_rtsp.py it points to a real stream."""

from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from sources.camera import PASSWORD, USER, Camera

from services.ingest.sources.config import Onvif
from services.ingest.sources.discovery import probe
from services.ingest.sources.door import Trouble
from services.ingest.sources.onvif import found, stream_address

LOOPBACK = IPv4Address("127.0.0.1")
STREAMS = {"p1": "rtsp://127.0.0.1:8554/main", "p2": "rtsp://127.0.0.1:8554/sub"}


def onvif(tmp_path: Path, **more: Any) -> Onvif:
    secret = tmp_path / "password"
    secret.write_text(f"{PASSWORD}\n")
    known = {"name": "gate", "kind": "onvif", "interface": "127.0.0.1", "username": USER, "password_file": str(secret)}
    return Onvif.model_validate({**known, **more})


@pytest.mark.parametrize("login", ["digest", "wsse"])
async def test_a_camera_found_by_discovery_gives_its_rtsp_address(tmp_path: Path, login: Any) -> None:
    with Camera(STREAMS, login=login) as camera:
        source = onvif(tmp_path, endpoint=camera.endpoint)
        assert await stream_address(source) == STREAMS["p1"]
        assert await stream_address(onvif(tmp_path, endpoint=camera.endpoint, profile="sub")) == STREAMS["p2"]
        assert camera.asked.index("GetSystemDateAndTime") == 0
        assert await stream_address(onvif(tmp_path, url=camera.address)) == STREAMS["p1"]


async def test_each_camera_answers_once_and_one_is_chosen(tmp_path: Path) -> None:
    with Camera(STREAMS, "north%20gate") as north, Camera(STREAMS, "south%20gate") as south:
        devices = {device.endpoint: device for device in await probe(0.5, LOOPBACK)}
        assert devices.keys() >= {north.endpoint, south.endpoint}
        assert devices[north.endpoint].addresses == (north.address,)
        assert "north gate" in str(devices[north.endpoint])
        chosen = await found(onvif(tmp_path, scope="/name/south", search_seconds=0.5))
        assert chosen.endpoint == south.endpoint
        with pytest.raises(Trouble) as several:
            await found(onvif(tmp_path, scope="gate", search_seconds=0.5))
        assert "cameras are meant; name one by `endpoint`" in str(several.value)
        assert north.endpoint in str(several.value)
        with pytest.raises(Trouble, match="has not answered; these have"):
            await found(onvif(tmp_path, endpoint="urn:uuid:nobody", search_seconds=0.5))


@pytest.mark.parametrize("login", ["digest", "wsse"])
async def test_what_is_wrong_is_said(tmp_path: Path, login: Any) -> None:
    with Camera({"p1": "http://elsewhere/", "p2": STREAMS["p2"]}, login=login) as camera:
        with pytest.raises(Trouble, match="which is no RTSP address"):
            await stream_address(onvif(tmp_path, url=camera.address))
        with pytest.raises(Trouble, match=r"no media profile third; it has p1 \(main\), p2 \(sub\)"):
            await stream_address(onvif(tmp_path, url=camera.address, profile="third"))
        wrong = tmp_path / "wrong"
        wrong.write_text("wrong")
        with pytest.raises(Trouble, match="refuses user and password") as refused:
            await stream_address(onvif(tmp_path, url=camera.address, password_file=str(wrong)))
        assert PASSWORD not in str(refused.value)
        with pytest.raises(Trouble, match="No such file"):
            await stream_address(onvif(tmp_path, url=camera.address, password_file=str(tmp_path / "none")))
    with pytest.raises(Trouble, match="onvif/device_service"):
        await stream_address(onvif(tmp_path, url=camera.address))
