from __future__ import annotations

from mixer.video.keyframes import KeyframePolicy


def test_losses_within_a_second_share_one_keyframe() -> None:
    policy = KeyframePolicy()
    policy.made(0.0)
    forced = []
    for step in range(300):
        now = 2.0 + step / 100
        if step % 10 == 0 and now < 3.0:
            policy.lost()  # ten in a second
        if policy.due(now):
            forced.append(now)
            policy.made(now)
    assert forced == [2.0, 3.0]  # those after the first are put off, not forgotten


def test_a_newcomer_does_not_wait_for_the_second() -> None:
    policy = KeyframePolicy()
    policy.lost()
    assert policy.due(5.0)
    policy.made(5.0)
    policy.joined()
    assert not policy.due(5.1)
    assert policy.deadline == 5.2
    assert policy.due(5.2)
    policy.made(5.2)
    policy.lost()
    policy.joined()
    policy.lost()
    assert policy.deadline == 5.4


def test_the_first_request_is_due_at_once() -> None:
    policy = KeyframePolicy()
    assert policy.deadline is None
    assert not policy.due(0.0)
    policy.lost()
    assert policy.due(0.0)


def test_a_crowd_shares_the_keyframe_that_is_on_its_way() -> None:
    policy = KeyframePolicy()
    for _ in range(30):
        policy.joined()
    assert policy.due(0.0)
    assert not policy.due(0.03)
    policy.made(0.05)
    assert policy.deadline is None
    assert (policy.requested, policy.forced) == (30, 1)


def test_a_force_without_effect_is_repeated() -> None:
    policy = KeyframePolicy()
    policy.joined()
    assert [tenth for tenth in range(35) if policy.due(tenth / 10)] == [0, 10, 20, 30]
    policy.made(3.5)
    assert not policy.due(9.0)


def test_a_keyframe_by_itself_serves_everybody() -> None:
    policy = KeyframePolicy()
    policy.made(0.0)
    policy.lost()
    policy.joined()
    policy.made(0.1)
    assert not policy.due(9.0)
    assert policy.forced == 0
