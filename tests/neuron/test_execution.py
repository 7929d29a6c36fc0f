# SPDX-License-Identifier: LicenseRef-PolyForm-Shield-1.0.0
import asyncio
import hashlib
import json
import time

import pytest
from msgspec.structs import replace

from helexa.neuron.pace import Pace
from helexa.protocol import subjects
from helexa.protocol.codec import unpack
from helexa.protocol.errors import (
    BackendError,
    BadRequestError,
    BusyError,
    DrainingError,
    ForbiddenError,
    ModelNotLoadedError,
    UnsupportedError,
)
from helexa.protocol.frames import Frame, FrameKind, read_done, read_error, read_last_part
from helexa.protocol.messages.execution import (
    AttachRequest,
    CancelRequest,
    ExecuteRequest,
    Operation,
    ResendRequest,
)
from helexa.protocol.messages.neurons import DrainRequest
from helexa.protocol.messages.routing import GatewayBeat
from helexa.protocol.messages.usage import USAGE_DOMAIN, UsageBatch, UsageRecord, read_usage
from helexa.protocol.prefixes import DIGEST_BYTES, digest_prefixes
from helexa.site.keys import verify

from .conftest import (
    MODEL,
    PATIENCE_S,
    THEIR_ID,
    Gateway,
    Rig,
    RigMaker,
    chunk,
    scripted,
    usage_chunk,
)


def text_of(frames: list[Frame]) -> bytes:
    return b"".join(
        frame.payload[1]
        for frame in frames
        if frame.kind == FrameKind.DATA and isinstance(frame.payload[1], bytes)
    )


def events_of(text: bytes) -> list[tuple[int, dict[str, object]]]:
    found = []
    for event in text.split(b"\n\n")[:-1]:
        number, data = event.split(b"\n")
        found.append((int(number.removeprefix(b"id: ")), json.loads(data.removeprefix(b"data: "))))
    return found


def signed_record(frame: Frame) -> UsageRecord:
    signed = frame.payload[1]
    assert isinstance(signed, dict)
    data, key, signature = signed["record"], signed["key"], signed["signature"]
    assert isinstance(data, bytes)
    assert isinstance(key, str)
    assert isinstance(signature, bytes)
    assert verify(key, USAGE_DOMAIN + data, signature)
    return read_usage(data)


async def cancel(gateway: Gateway, request: ExecuteRequest, owner: str | None = None) -> str:
    reply = await gateway.bus.request(
        subjects.CANCEL,
        CancelRequest(
            request_id=request.request_id, owner=owner or gateway.name, attempt=request.attempt
        ),
        deadline_s=PATIENCE_S,
        neuron=gateway.token,
    )
    return reply.state


@pytest.mark.accepts("NR-3", "NR-10", "PORT-6")
async def test_an_accepted_request_is_numbered_frames_and_one_end(rig: Rig) -> None:
    request = rig.gateway.request(first_seq=5, first_event=3, attempt=2)
    reply = await rig.gateway.execute(request)
    assert reply.slots_free == 1
    script = await rig.runtimes.script()
    script.say(chunk(None))
    await rig.gateway.until(lambda: bool(rig.gateway.frames(request)))
    script.answer("He", "llo")
    frames = await rig.gateway.ended(request)
    assert [frame.seq for frame in frames] == list(range(5, 5 + len(frames)))
    assert {frame.attempt for frame in frames} == {2}
    assert [frame.kind for frame in frames if frame.is_terminal] == [FrameKind.DONE]
    numbered = events_of(text_of(frames))
    assert [number for number, _ in numbered] == list(range(3, 3 + len(numbered)))
    firsts = [frame.first_event for frame in frames if frame.kind == FrameKind.DATA]
    assert firsts[0] == 3
    assert frames[-1].first_event == 3 + len(numbered)


async def test_the_neuron_reports_what_it_has_read_at_once(rig: Rig) -> None:
    prompt = digest_prefixes(b"a long prompt " * 200)
    await rig.gateway.execute(rig.gateway.request(prefix_digests=prompt))

    def reported() -> bool:
        models = rig.gateway.statuses[-1].models
        return any(each.prefix_digests == prompt[-DIGEST_BYTES:] for each in models)

    await rig.gateway.until(reported)


async def test_the_id_and_the_model_are_ours_in_every_event(rig: Rig) -> None:
    request = rig.gateway.request(public_id='chatcmpl-"quoted" ü')
    await rig.gateway.execute(request)
    script = await rig.runtimes.script()
    tricky = f'a text with "id":"{THEIR_ID}" in it'
    script.say(chunk(None, model="/path/of/file.gguf"))
    script.say(chunk(tricky, model="/path/of/file.gguf"))
    script.end()
    events = [event for _, event in events_of(text_of(await rig.gateway.ended(request)))]
    assert {event["id"] for event in events} == {'chatcmpl-"quoted" ü'}
    assert {event["model"] for event in events} == {MODEL}
    assert tricky in json.dumps(events[1]["choices"]).replace("\\", "")


@pytest.mark.parametrize("show", [True, False])
async def test_counts_are_shown_only_to_who_asks_and_cover_all_choices(
    rig: Rig, *, show: bool
) -> None:
    request = rig.gateway.request(show_usage=show)
    await rig.gateway.execute(request)
    script = await rig.runtimes.script()
    script.say(chunk("a"), usage_chunk(7, 10, cached=4), usage_chunk(7, 5, cached=4))
    script.end()
    frames = await rig.gateway.ended(request)
    usage, timings = read_done(frames[-1])
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (7, 15, 4)
    assert timings.first_token_s is not None
    shown = [event["usage"] for _, event in events_of(text_of(frames)) if "usage" in event]
    totals = [(one["prompt_tokens"], one["total_tokens"]) for one in shown]  # type: ignore[index]
    assert totals == ([(7, 22)] if show else [])


async def test_the_signed_usage_verifies_and_hashes_what_was_published(rig: Rig) -> None:
    request = rig.gateway.request(account="digest")
    await rig.gateway.execute(request)
    (await rig.runtimes.script()).answer("one", "two")
    frames = await rig.gateway.ended(request)
    record = signed_record(frames[-1])
    text = text_of(frames)
    assert record.output_sha256 == hashlib.sha256(text).hexdigest()
    assert record.output_bytes == len(text)
    assert record.events == len(events_of(text))
    assert (record.request_id, record.attempt) == (request.request_id, 1)
    assert (record.completion_tokens, record.counted) == (2, "backend")
    assert (record.outcome, record.account) == ("done", "digest")
    assert record.model_fields_set == UsageRecord.model_fields.keys() - {"prefix_tokens"}


async def test_signed_usage_is_stored_for_its_portal(rig: Rig) -> None:
    request = rig.gateway.request()
    await rig.gateway.execute(request)
    (await rig.runtimes.script()).answer("one")
    await rig.gateway.ended(request)
    assert await rig.link.usage.flush(PATIENCE_S)
    subject = subjects.subject_of(
        subjects.USAGE.subject, portal=f"portal-{rig.gateway.name}", neuron=rig.gateway.token
    )
    kept = await rig.gateway.bus.jetstream.get_last_msg("USAGE", subject)
    (signed,) = unpack(UsageBatch, kept.data or b"").records
    assert read_usage(signed.record).request_id == request.request_id
    assert rig.link.usage.waiting == 0


async def test_fast_events_share_frames_and_the_first_one_waits_for_nothing(
    new_rig: RigMaker, nats_url: str
) -> None:
    async with new_rig({"home": nats_url}, pace=Pace(frame_interval_s=0.3)) as rig:
        await rig.gateway.load(scripted())
        request = rig.gateway.request()
        await rig.gateway.execute(request)
        script = await rig.runtimes.script()
        began_s = time.monotonic()
        script.say(chunk("first"))
        await rig.gateway.until(lambda: bool(rig.gateway.frames(request)))
        assert time.monotonic() - began_s < 0.2
        for number in range(20):
            script.say(chunk(str(number)))
        await rig.gateway.until(lambda: len(rig.gateway.frames(request)) == 2)
        assert rig.gateway.frames(request)[1].payload[0] == 20
        script.end()
        await rig.gateway.ended(request)


async def test_a_silent_backend_is_seen_to_be_at_work(new_rig: RigMaker, nats_url: str) -> None:
    async with new_rig({"home": nats_url}, pace=Pace(beat_interval_s=0.05)) as rig:
        await rig.gateway.load(scripted())
        request = rig.gateway.request()
        await rig.gateway.execute(request)
        await rig.gateway.until(lambda: len(rig.gateway.frames(request)) >= 3)
        assert {frame.kind for frame in rig.gateway.frames(request)} == {FrameKind.BEAT}


@pytest.mark.parametrize("first", [True, False])
async def test_a_backend_that_stays_silent_ends_the_request(
    new_rig: RigMaker, nats_url: str, *, first: bool
) -> None:
    async with new_rig({"home": nats_url}, pace=Pace(beat_interval_s=0.05)) as rig:
        await rig.gateway.load(scripted())
        limit = {"first_token_timeout_s": 0.1} if first else {"idle_timeout_s": 0.1}
        request = rig.gateway.request(**limit)
        await rig.gateway.execute(request)
        script = await rig.runtimes.script()
        if not first:
            script.say(chunk("a"))
        frames = await rig.gateway.ended(request)
        assert read_error(frames[-1]).code == "deadline_exceeded"
        assert script.closed.is_set()


@pytest.mark.accepts("PORT-6")
async def test_a_cancel_stops_the_backend_and_frees_the_slot_within_a_second(rig: Rig) -> None:
    request = rig.gateway.request()
    await rig.gateway.execute(request)
    script = await rig.runtimes.script()
    script.say(chunk(None))
    script.say(chunk("a"), chunk("b"))
    await rig.gateway.until(lambda: sum(f.kind == 3 for f in rig.gateway.frames(request)) == 2)
    began_s = time.monotonic()
    assert await cancel(rig.gateway, request) == "cancelled"
    frames = await rig.gateway.ended(request)
    assert time.monotonic() - began_s < 1
    assert script.closed.is_set()
    assert rig.node.presence.host.slots.busy == 0
    assert read_error(frames[-1]).code == "cancelled"
    record = signed_record(frames[-1])
    assert (record.outcome, record.counted, record.completion_tokens) == ("cancelled", "frames", 2)
    assert await cancel(rig.gateway, request) == "finished"
    assert sum(frame.is_terminal for frame in rig.gateway.frames(request)) == 1


async def test_a_backend_that_does_not_let_go_does_not_keep_the_slot(rig: Rig) -> None:
    request = rig.gateway.request()
    await rig.gateway.execute(request)
    script = await rig.runtimes.script()
    stuck = asyncio.Event()

    async def never() -> None:
        await stuck.wait()

    script.aclose = never  # type: ignore[method-assign]
    began_s = time.monotonic()
    await cancel(rig.gateway, request)
    await rig.gateway.ended(request)
    assert time.monotonic() - began_s < 1
    assert rig.node.presence.host.slots.busy == 0


async def test_a_cancel_before_the_first_step_still_ends_the_answer(rig: Rig) -> None:
    request = rig.gateway.request()
    executor = rig.link.executor
    executor.accept(request)
    executor.cancel(CancelRequest(request_id=request.request_id, owner=rig.gateway.name, attempt=1))
    frames = await rig.gateway.ended(request)
    assert [frame.kind for frame in frames] == [FrameKind.ERROR]
    assert rig.node.presence.host.slots.busy == 0


@pytest.mark.accepts("PORT-8")
async def test_only_the_owner_may_cancel_and_attaching_makes_an_owner(rig: Rig) -> None:
    request = rig.gateway.request()
    await rig.gateway.execute(request)
    with pytest.raises(ForbiddenError):
        await cancel(rig.gateway, request, owner="gw-other")
    await rig.gateway.bus.request(
        subjects.ATTACH,
        AttachRequest(request_id=request.request_id, owner="gw-other"),
        deadline_s=PATIENCE_S,
        neuron=rig.gateway.token,
    )
    with pytest.raises(ForbiddenError):
        await cancel(rig.gateway, request)
    assert await cancel(rig.gateway, request, owner="gw-other") == "cancelled"


async def test_work_whose_owner_falls_silent_ends_unless_it_may_outlive_it(
    new_rig: RigMaker, nats_url: str
) -> None:
    async with new_rig({"home": nats_url}, pace=Pace(owner_silence_s=0.6)) as rig:
        await rig.gateway.load(scripted(slots=3))
        left = rig.gateway.request()
        background = rig.gateway.request(outlives_owner=True)
        cared_for = rig.gateway.request(owner="gw-alive")
        for request in (left, background, cared_for):
            await rig.gateway.execute(request)

        async def beat() -> None:
            while True:
                await rig.gateway.bus.publish(
                    subjects.GATEWAY_BEAT, GatewayBeat(gateway="gw-alive"), gateway="gw-alive"
                )
                await asyncio.sleep(0.1)

        beating = asyncio.create_task(beat())
        frames = await rig.gateway.ended(left)
        beating.cancel()
        error = read_error(frames[-1])
        assert (error.code, error.details["reason"]) == ("cancelled", "owner_gone")
        for request in (background, cared_for):
            assert not any(frame.is_terminal for frame in rig.gateway.frames(request))


async def test_a_neuron_that_started_before_its_server_ends_orphans_too(
    new_rig: RigMaker, nats_url: str
) -> None:
    async with new_rig({"home": nats_url}, pace=Pace(owner_silence_s=0.6)) as rig:
        await rig.gateway.load(scripted())
        looks = iter([False, False])
        watching = asyncio.create_task(rig.link.executor.run(lambda: next(looks, True)))
        request = rig.gateway.request()
        await rig.gateway.execute(request)
        frames = await rig.gateway.ended(request)
        watching.cancel()
        assert read_error(frames[-1]).details["reason"] == "owner_gone"


@pytest.mark.parametrize("has_ended", [True, False])
async def test_a_resend_returns_the_same_bytes(rig: Rig, *, has_ended: bool) -> None:
    request = rig.gateway.request()
    await rig.gateway.execute(request)
    script = await rig.runtimes.script()
    script.say(chunk(None))
    await rig.gateway.until(lambda: bool(rig.gateway.frames(request)))
    script.say(chunk("a"))
    if has_ended:
        script.end()
        await rig.gateway.ended(request)
    else:
        await rig.gateway.until(lambda: len(rig.gateway.frames(request)) == 2)
    published = rig.gateway.raw[request.request_id.partition(".")[2]]

    async def resend(from_seq: int, to_seq: int | None = None) -> tuple[bytes, ...]:
        reply = await rig.gateway.bus.request(
            subjects.RESEND,
            ResendRequest(
                request_id=request.request_id, attempt=1, from_seq=from_seq, to_seq=to_seq
            ),
            deadline_s=PATIENCE_S,
            neuron=rig.gateway.token,
        )
        assert reply.complete
        return reply.frames

    assert await resend(0) == tuple(published)
    assert await resend(1, 2) == (published[1],)


async def test_a_request_that_is_not_known_has_nothing_to_resend(rig: Rig) -> None:
    request = rig.gateway.request()
    reply = await rig.gateway.bus.request(
        subjects.RESEND,
        ResendRequest(request_id=request.request_id, attempt=1, from_seq=0),
        deadline_s=PATIENCE_S,
        neuron=rig.gateway.token,
    )
    assert (reply.frames, reply.complete) == ((), False)
    assert await cancel(rig.gateway, request) == "unknown"


@pytest.mark.accepts("NR-10")
async def test_what_cannot_be_served_is_refused_at_once_with_the_reason(rig: Rig) -> None:
    running = [rig.gateway.request() for _ in range(2)]
    for request in running:
        await rig.gateway.execute(request)
    with pytest.raises(BusyError) as busy:
        await rig.gateway.execute(rig.gateway.request())
    assert busy.value.retry_after_s
    with pytest.raises(ModelNotLoadedError):
        await rig.gateway.execute(rig.gateway.request(model="nobody"))
    with pytest.raises(UnsupportedError):
        await rig.gateway.execute(rig.gateway.request(operation="dance"))
    with pytest.raises(BadRequestError):
        await rig.gateway.execute(rig.gateway.request(home="*", request_id="*.>"))
    await rig.gateway.bus.request(
        subjects.DRAIN, DrainRequest(), deadline_s=PATIENCE_S, neuron=rig.gateway.token
    )
    with pytest.raises(DrainingError):
        await rig.gateway.execute(rig.gateway.request())
    await rig.gateway.until(lambda: rig.gateway.statuses[-1].draining)
    assert rig.gateway.statuses[-1].slots_busy == 2


async def test_a_repeated_request_is_one_request(rig: Rig) -> None:
    request = rig.gateway.request()
    await rig.gateway.execute(request)
    await rig.gateway.execute(request)
    assert rig.node.presence.host.slots.busy == 1


async def test_a_newer_attempt_ends_the_older_one_here(rig: Rig) -> None:
    request = rig.gateway.request()
    await rig.gateway.execute(request)
    await rig.gateway.execute(replace(request, attempt=2, first_seq=10))
    await rig.gateway.ended(request)
    assert rig.link.executor.running == 1


async def test_a_backend_that_breaks_off_ends_the_answer_after_what_it_said(rig: Rig) -> None:
    request = rig.gateway.request()
    await rig.gateway.execute(request)
    script = await rig.runtimes.script()
    script.say(chunk("a"))
    script.say(chunk("b"))
    script.fail(BackendError("it closed without its end mark"))
    frames = await rig.gateway.ended(request)
    assert read_error(frames[-1]).code == "backend_failed"
    assert len(events_of(text_of(frames))) == 2
    assert signed_record(frames[-1]).outcome == "backend_failed"


async def test_an_embedding_comes_in_parts_under_our_name(rig: Rig) -> None:
    vectors = [[0.25] * 40_000 for _ in range(4)]
    rig.runtimes.embedding = json.dumps(
        {"model": "theirs", "data": vectors, "usage": {"prompt_tokens": 9}}
    ).encode()
    request = rig.gateway.request(operation=Operation.EMBEDDING)
    await rig.gateway.execute(request)
    frames = await rig.gateway.ended(request)
    parts = [frame.payload[0] for frame in frames if frame.kind == FrameKind.BODY]
    parts.append(read_last_part(frames[-1]))
    assert len(parts) > 1
    whole = b"".join(part for part in parts if isinstance(part, bytes))
    answer = json.loads(whole)
    assert (answer["model"], answer["data"]) == (MODEL, vectors)
    assert read_done(frames[-1])[0].prompt_tokens == 9
    assert signed_record(frames[-1]).output_sha256 == hashlib.sha256(whole).hexdigest()
