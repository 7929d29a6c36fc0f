# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.conftest import Broker

from helexa.bus import tokenlog
from helexa.bus.buckets import Bucket, Mirror
from helexa.bus.client import Bus
from helexa.bus.connection import Connection
from helexa.bus.lease import Lease
from helexa.bus.resources import Durability, ensure_resources, restore_resources
from helexa.protocol import resources, subjects
from helexa.protocol.errors import ConflictError, UnavailableError
from helexa.protocol.messages.models import ModelConfig, ModelId
from helexa.protocol.subjects import Role

OWNERS = (Role.GATEWAY, Role.PROVISIONER, Role.PORTAL)


@pytest.fixture
async def site(broker: Broker) -> AsyncIterator[Bus]:
    async with Bus(Connection((broker.url,), "test")) as bus:
        for role in OWNERS:
            await ensure_resources(bus, role, Durability())
        yield bus


def model(name: str, kind: str = "llama_cpp") -> ModelConfig:
    return ModelConfig(model=ModelId(name), backend_kind=kind)


async def until(mirror: Mirror[ModelConfig], key: str) -> ModelConfig | None:
    changed: asyncio.Queue[ModelConfig | None] = asyncio.Queue()
    mirror.on_change(lambda name, value: changed.put_nowait(value) if name == key else None)
    return await asyncio.wait_for(changed.get(), 10)


async def kept_by_now(site: Bus) -> None:
    """Return when all that was published before is in the token log."""
    await site.jetstream.publish("helexa.tokens.marker.a.r", b"")


async def test_a_bucket_is_looked_for_once(site: Bus) -> None:
    looked: list[str] = []
    await site.subscribe_raw("$JS.API.STREAM.INFO.>", lambda subject, _: looked.append(subject))
    bucket = Bucket(site, resources.MODELS, ModelConfig)
    for number in range(3):
        await bucket.put("m", model("m", f"kind {number}"))
        assert await bucket.get("m") is not None
    await bucket.delete("m")
    assert await bucket.get("m") is None
    assert len(looked) == 1


async def test_a_bucket_that_is_gone_has_not_lost_its_keys(site: Bus) -> None:
    bucket = Bucket(site, resources.MODELS, ModelConfig)
    await bucket.put("m", model("m"))
    await site.jetstream.delete_key_value(resources.MODELS.name)
    for _ in range(2):
        with pytest.raises(UnavailableError):
            await bucket.get("m")
        with pytest.raises(UnavailableError):
            await bucket.put("m", model("m"))
    await restore_resources(site, Role.PROVISIONER, Durability())
    assert await bucket.get("m") is None
    await bucket.put("m", model("m"))


async def test_declaring_what_exists_changes_nothing(site: Bus) -> None:
    await site.publish_raw("helexa.tokens.h.a.r", b"frame")
    await kept_by_now(site)
    for role in OWNERS:
        await ensure_resources(site, role, Durability())
    assert await tokenlog.last_sequence(site, "helexa.tokens.h.a.r") == 1


async def test_a_changed_declaration_is_applied_to_what_exists(site: Bus) -> None:
    await ensure_resources(site, Role.GATEWAY, Durability(token_log_bytes=1024 * 1024))
    found = await site.jetstream.stream_info(resources.TOKENS.name)
    assert found.config.max_bytes == 1024 * 1024


async def test_a_reconnection_undoes_no_change_and_restores_what_is_lost(site: Bus) -> None:
    changed = Durability(token_log_bytes=1024 * 1024)
    await ensure_resources(site, Role.GATEWAY, changed)
    await restore_resources(site, Role.GATEWAY, Durability())
    kept = await site.jetstream.stream_info(resources.TOKENS.name)
    await site.jetstream.delete_stream(resources.TOKENS.name)
    await restore_resources(site, Role.GATEWAY, Durability())
    restored = await site.jetstream.stream_info(resources.TOKENS.name)
    sizes = (kept.config.max_bytes, restored.config.max_bytes)
    assert sizes == (changed.token_log_bytes, Durability().token_log_bytes)


async def test_what_cannot_be_changed_stays_and_the_rest_is_applied(site: Bus) -> None:
    wanted = Durability(token_storage="file", token_log_bytes=1024 * 1024)
    await asyncio.wait_for(ensure_resources(site, Role.GATEWAY, wanted), 10)
    found = (await site.jetstream.stream_info(resources.TOKENS.name)).config
    assert (found.storage, found.max_bytes) == ("memory", 1024 * 1024)


async def test_a_record_is_kept_under_any_name(site: Bus) -> None:
    bucket = Bucket(site, resources.MODELS, ModelConfig)
    await bucket.put("org/model v1.*", model("org/model v1.*"))
    entry = await bucket.get("org/model v1.*")
    assert entry is not None
    assert entry.value.model == "org/model v1.*"
    await bucket.delete("org/model v1.*")
    assert await bucket.get("org/model v1.*") is None


async def test_of_two_writers_one_wins(site: Bus) -> None:
    bucket = Bucket(site, resources.MODELS, ModelConfig)
    revision = await bucket.replace("m", model("m"), None)
    with pytest.raises(ConflictError):
        await bucket.replace("m", model("m"), None)
    await bucket.replace("m", model("m", "vllm"), revision)
    with pytest.raises(ConflictError):
        await bucket.replace("m", model("m"), revision)


async def test_a_mirror_follows_changes_and_deletions(site: Bus) -> None:
    bucket = Bucket(site, resources.MODELS, ModelConfig)
    await bucket.put("before", model("before"))
    mirror = Mirror(bucket)
    running = asyncio.create_task(mirror.run())
    await asyncio.wait_for(mirror.wait_fresh(), 10)
    assert set(mirror.entries) == {"before"}
    waiting = asyncio.create_task(until(mirror, "after"))
    await asyncio.sleep(0)
    await bucket.put("after", model("after"))
    assert (await waiting) == model("after")
    waiting = asyncio.create_task(until(mirror, "before"))
    await asyncio.sleep(0)
    await bucket.delete("before")
    assert await waiting is None
    assert set(mirror.values) == {"after"}
    running.cancel()


async def test_a_mirror_that_is_fresh_holds_what_was_there_before_it(site: Bus) -> None:
    bucket = Bucket(site, resources.MODELS, ModelConfig)
    await bucket.put("before", model("before"))
    mirrors = [Mirror(bucket) for _ in range(150)]
    running = [asyncio.create_task(mirror.run()) for mirror in mirrors]
    for mirror in mirrors:
        await asyncio.wait_for(mirror.wait_fresh(), 30)
        assert set(mirror.entries) == {"before"}
    for task in running:
        task.cancel()


async def test_an_empty_bucket_is_known_to_be_empty(site: Bus) -> None:
    mirror = Mirror(Bucket(site, resources.PLACEMENTS, ModelConfig))
    running = asyncio.create_task(mirror.run())
    await asyncio.wait_for(mirror.wait_fresh(), 10)
    assert mirror.entries == {}
    running.cancel()


async def test_a_mirror_sees_changes_at_once_after_the_broker_was_restarted(
    site: Bus, broker: Broker
) -> None:
    bucket = Bucket(site, resources.MODELS, ModelConfig)
    mirror = Mirror(bucket)
    running = asyncio.create_task(mirror.run())
    await asyncio.wait_for(mirror.wait_fresh(), 10)
    back = asyncio.Event()

    async def note() -> None:
        back.set()

    site.on_reconnected(note)
    broker.stop(kill=True)
    broker.start()
    await asyncio.wait_for(back.wait(), 10)
    waiting = asyncio.create_task(until(mirror, "new"))
    await asyncio.sleep(0)
    await bucket.put("new", model("new"))
    assert await asyncio.wait_for(waiting, 5) == model("new")
    running.cancel()


async def test_a_mirror_that_checks_misses_nothing_when_its_watch_falls_silent(site: Bus) -> None:
    bucket = Bucket(site, resources.MODELS, ModelConfig)
    await bucket.put("old", model("old"))
    mirror = Mirror(bucket, checks=True)
    running = asyncio.create_task(mirror.run())
    await asyncio.wait_for(mirror.wait_fresh(), 10)
    for consumer in await site.jetstream.consumers_info("KV_models"):
        await site.jetstream.delete_consumer("KV_models", consumer.name)
    began = asyncio.get_running_loop().time()
    waiting = asyncio.create_task(until(mirror, "new"))
    await asyncio.sleep(0)
    await bucket.put("new", model("new"))
    assert await waiting == model("new")
    # Without the checks it takes more than ten seconds.
    assert asyncio.get_running_loop().time() - began < 4
    assert mirror.is_fresh
    running.cancel()


async def test_a_mirror_that_checks_lets_be_what_has_been_purged(site: Bus) -> None:
    bucket = Bucket(site, resources.MODELS, ModelConfig)
    await bucket.put("old", model("old"))
    await site.jetstream.purge_stream("KV_models")
    mirror = Mirror(bucket, checks=True)
    running = asyncio.create_task(mirror.run())
    await asyncio.wait_for(mirror.wait_fresh(), 10)
    watches: list[str] = []
    await site.subscribe_raw(
        "$JS.API.CONSUMER.CREATE.KV_models.>", lambda subject, _: watches.append(subject)
    )
    asked: asyncio.Queue[str] = asyncio.Queue()
    await site.subscribe_raw(
        "$JS.API.STREAM.INFO.KV_models", lambda subject, _: asked.put_nowait(subject)
    )
    for _ in range(5):
        await asyncio.wait_for(asked.get(), 10)
    assert len(watches) <= 1
    running.cancel()


async def test_leadership_passes_on_at_once_when_a_leader_leaves(site: Bus) -> None:
    first, second = Lease(site, "role", "one"), Lease(site, "role", "two")
    leading = asyncio.create_task(first.run())
    await asyncio.wait_for(first.wait_held(), 10)
    fence = first.fence
    following = asyncio.create_task(second.run())
    leading.cancel()
    await asyncio.wait_for(second.wait_held(), 5)
    assert second.fence > fence
    assert not first.is_held
    following.cancel()


async def test_all_kept_frames_of_one_answer_are_read_back_in_order(site: Bus) -> None:
    wanted = subjects.subject_of(subjects.TOKENS, home="g", author="n", request="r")
    other = subjects.subject_of(subjects.TOKENS, home="g", author="n", request="q")
    for number in range(2100):
        await site.publish_raw(wanted, number.to_bytes(4, "big"))
        await site.publish_raw(other, b"other")
    await kept_by_now(site)
    kept = await tokenlog.read_log(site, wanted)
    assert [int.from_bytes(each.data, "big") for each in kept] == list(range(2100))
    assert await tokenlog.read_log(site, wanted + "x") == []


async def test_of_two_gateways_that_take_over_one_wins(site: Bus) -> None:
    subject = subjects.subject_of(subjects.TOKENS, home="g", author="ctl", request="r")
    await site.publish_raw(subject, b"open")
    await kept_by_now(site)
    last = await tokenlog.last_sequence(site, subject)
    await tokenlog.append(site, subject, b"attach", after=last)
    with pytest.raises(ConflictError):
        await tokenlog.append(site, subject, b"attach too", after=last)


async def test_an_append_that_the_log_refuses_reaches_no_subscriber(site: Bus) -> None:
    subject = subjects.subject_of(subjects.TOKENS, home="g", author="ctl", request="r")
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    await site.subscribe_raw(subject, lambda _, data: heard.put_nowait(data))
    with pytest.raises(ConflictError):
        await tokenlog.append(site, subject, b"refused", after=7)
    await site.publish_raw(subject, b"marker")
    assert await asyncio.wait_for(heard.get(), 5) == b"marker"
