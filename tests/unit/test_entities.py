"""The Service Bus stand-in's topics and subscriptions behave as Service Bus says of its own."""

from services.standins.entities import Namespace, Subscription


def made(max_delivery: int = 3) -> tuple[Namespace, Subscription, Subscription]:
    namespace = Namespace(lock_seconds=60, max_delivery=max_delivery)
    for name in ("infer", "ingest"):
        namespace.subscribe("Sample-Ingested", name)
    return namespace, *(namespace.subscriptions[f"sample-ingested/subscriptions/{n}"] for n in ("infer", "ingest"))


def test_every_subscription_has_its_own_copy() -> None:
    namespace, infer, ingest = made()
    namespace.topics["sample-ingested"].send("a", "1", 0)
    assert infer.take("t", "me", 0)
    assert infer.complete("t")
    assert len(infer) == infer.locked == 0
    assert len(ingest) == 1


def test_a_message_id_is_taken_once_within_the_window() -> None:
    namespace, infer, _ = made()
    topic = namespace.topics["sample-ingested"]
    assert [topic.send("a", "1", now) for now in (0, 1, 599)] == [True, False, False]
    assert [topic.send("a", None, 0) for _ in range(2)] == [True, True]
    assert topic.send("a", "1", 601)
    assert len(infer) == 4


def test_what_is_abandoned_comes_again_and_dies_in_the_end() -> None:
    namespace, infer, _ = made(max_delivery=3)
    namespace.topics["sample-ingested"].send("poison", "1", 0)
    namespace.topics["sample-ingested"].send("good", "2", 0)
    counts = []
    for attempt in range(3):
        stored = infer.take(attempt, "me", 0)
        assert stored
        counts.append((stored.message, stored.count))
        infer.abandon(attempt)
    assert counts == [("poison", 0), ("poison", 1), ("poison", 2)]
    assert infer.dead is not None
    assert len(infer.dead) == 1
    good = infer.take("t", "me", 0)
    assert good
    assert good.message == "good"
    infer.reject("t")
    assert len(infer.dead) == 2


def test_what_is_given_back_unseen_does_not_count() -> None:
    namespace, infer, _ = made(max_delivery=2)
    namespace.topics["sample-ingested"].send("a", "1", 0)
    for attempt in range(10):
        stored = infer.take(attempt, "me", 0)
        assert stored
        assert stored.count == 0
        infer.give_back(attempt)


def test_a_lock_ends_by_time_or_with_its_holder_unless_it_is_renewed() -> None:
    namespace, infer, _ = made(max_delivery=10)
    for number in range(3):
        namespace.topics["sample-ingested"].send(number, None, 0)
    for token, holder in (("a", "one"), ("b", "two"), ("c", "two")):
        infer.take(token, holder, 0)
    infer.renew("one", 50)
    assert infer.expire(60) == 2
    assert not infer.complete("b")
    assert [infer.take(f"again-{n}", "two", 61).message for n in range(2)] == [1, 2]  # type: ignore[union-attr]
    assert infer.lose("two") == 2
    assert infer.complete("a")
