"""The live endpoint alone, fed with a believable fleet: what `bench.live` measures. A process of its own.

It prints {"port": …} when it listens and runs until it is killed. Samples arrive as collectors send them: in small
batches, spread over each second.
"""

import asyncio
import json
import sys
import time
from collections.abc import Collection
from random import Random

import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute

from server_monitor.auth.actor import Actor, ActorKind, Role
from server_monitor.bus.contract import SamplesTaken, Subject
from server_monitor.bus.memory import MemoryBus
from server_monitor.db.ids import new_id
from server_monitor.realtime.endpoint import Access, Live, Rules
from server_monitor.realtime.hub import Hub
from server_monitor.series.sample import HEADLINE

BATCHES_A_SECOND = 40


async def _serve(hosts: int) -> None:
    bus = MemoryBus()
    hub = Hub(bus, watcher="bench", headline=HEADLINE, explain=_explain)
    live = Live(hub, bus, Access(_authenticate, _still, _everything, _found, _nothing), Rules(sockets_per_user=20_000))
    server = uvicorn.Server(
        uvicorn.Config(
            Starlette(routes=[WebSocketRoute("/ws/live", live.serve)]),
            port=0,
            loop="none",
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            backlog=4096,
        )
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve())
        tasks.create_task(hub.run())
        tasks.create_task(live.run())
        tasks.create_task(_collect(bus, hosts))
        while not server.started:  # noqa: ASYNC110  # uvicorn has no event for it.
            await asyncio.sleep(0.01)
        print(json.dumps({"port": server.servers[0].sockets[0].getsockname()[1]}), flush=True)


async def _collect(bus: MemoryBus, hosts: int) -> None:
    """Publish every host once a second; the values are made before, so that making them costs nothing here."""
    chance = Random(1)
    names = [*HEADLINE, *(f"device_reads_per_second:vd{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    values = {new_id(): {name: chance.random() * 100 for name in names} for _ in range(hosts)}
    ids = list(values)
    batches = [{one: values[one] for one in ids[start::BATCHES_A_SECOND]} for start in range(BATCHES_A_SECOND)]
    began = time.monotonic()
    for number in range(sys.maxsize):
        bus.publish(Subject.SAMPLES, SamplesTaken(time.time(), batches[number % BATCHES_A_SECOND]))
        await asyncio.sleep(max(0.0, began + (number + 1) / BATCHES_A_SECOND - time.monotonic()))


async def _authenticate(_cookie: str | None, _bearer: str | None) -> Actor | None:
    return Actor(ActorKind.USER, "id", "bench", Role.VIEWER)


async def _still(actor: Actor) -> Actor | None:
    return actor


async def _everything(_actor: Actor) -> frozenset[str] | None:
    return None


async def _found(_actor: Actor, ids: Collection[str]) -> frozenset[str]:
    return frozenset(ids)


async def _nothing(_size: int) -> Collection[str]:
    return ()


async def _explain(_server_id: str, _reason: str) -> tuple[str, str]:
    return "", ""


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1])))
