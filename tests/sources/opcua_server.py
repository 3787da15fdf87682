"""An OPC UA server (asyncua's own) in a process of its own, with two tags that are set by lines on stdin:
`SECONDS A B` writes both at that moment, `SECONDS A -` one of them, `bad` makes the first one's quality bad."""

import asyncio
import sys
from datetime import UTC, datetime

from asyncua import Server, ua


async def main(port: int) -> None:
    server = Server()
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{port}/")
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    space = await server.register_namespace("urn:halfsure:test")
    tags = [await server.nodes.objects.add_variable(ua.NodeId(name, space), name, 0.0) for name in ("a", "b")]
    async with server:
        print(f"ready {space}", flush=True)
        while line := (await asyncio.to_thread(sys.stdin.readline)).split():
            if line == ["bad"]:
                status = ua.StatusCode(ua.UInt32(ua.StatusCodes.BadSensorFailure))
                await server.write_attribute_value(tags[0].nodeid, ua.DataValue(ua.Variant(0.0), status))
                continue
            when = datetime.fromtimestamp(float(line[0]), UTC)
            for tag, value in zip(tags, line[1:], strict=True):
                if value != "-":
                    variant = ua.Variant(float(value), ua.VariantType.Double)
                    await server.write_attribute_value(tag.nodeid, ua.DataValue(variant, SourceTimestamp=when))
            print("written", flush=True)


asyncio.run(main(int(sys.argv[1])))
