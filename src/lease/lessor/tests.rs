//! Deadlines, renewals, hand-outs, promotions.

use super::*;
use crate::lease::LeaseRecord;

const TTL: i64 = 10;

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A leading lessor and its origin.
fn leading() -> (LeaseWriter, Arc<Lessor>, Instant) {
    let origin = crate::env::Clock::now(&crate::env::SystemClock);
    let (writer, lessor) = Lessor::new(origin);
    lessor.promote(origin, Duration::ZERO);
    (writer, lessor, origin)
}

#[test]
fn a_lease_ends_after_its_time_and_not_before() {
    let (mut writer, lessor, start) = leading();
    assert!(writer.grant(LeaseId(1), TTL));
    assert!(!writer.grant(LeaseId(1), TTL));
    lessor.arm(start);
    assert_eq!(lessor.expired(start + secs(10), 10), []);
    assert_eq!(lessor.expired(start + secs(10) + Duration::from_millis(1), 10), [LeaseId(1)]);
}

#[test]
fn the_clock_of_a_grant_begins_at_the_first_look_even_if_nobody_armed_it() {
    let (mut writer, lessor, start) = leading();
    writer.grant(LeaseId(1), TTL);
    assert_eq!(lessor.expired(start + secs(100), 10), []);
    let status = lessor.remaining(LeaseId(1), start + Duration::from_millis(100_500)).unwrap();
    assert_eq!(status, LeaseStatus { granted_secs: 10, remaining_secs: 9 });
    assert_eq!(lessor.expired(start + secs(111), 10), [LeaseId(1)]);
}

#[test]
fn remaining_seconds_are_cut_as_etcd_cuts_them() {
    let (mut writer, lessor, start) = leading();
    writer.grant(LeaseId(1), 100);
    lessor.arm(start);
    assert_eq!(lessor.remaining(LeaseId(1), start).unwrap().remaining_secs, 99);
    assert_eq!(lessor.remaining(LeaseId(1), start + secs(200)).unwrap().remaining_secs, 0);
    assert_eq!(lessor.remaining(LeaseId(2), start), None);
}

#[test]
fn a_renewed_lease_lives_on_and_costs_no_heap_entry() {
    let (mut writer, lessor, start) = leading();
    writer.grant(LeaseId(1), TTL);
    lessor.arm(start);
    for second in 1..50 {
        let renewed = Renewal::Renewed { ttl_secs: TTL, reset_checkpoint: false };
        assert_eq!(lessor.renew(LeaseId(1), start + secs(second)), renewed);
        assert_eq!(lessor.expired(start + secs(second), 10), []);
        assert_eq!(lessor.shard(LeaseId(1)).heap_len(), 1);
    }
    assert_eq!(lessor.expired(start + secs(59), 10), []);
    assert_eq!(lessor.expired(start + Duration::from_millis(59_001), 10), [LeaseId(1)]);
}

#[test]
fn an_expired_lease_cannot_be_renewed_and_comes_again_until_it_is_gone() {
    let (mut writer, lessor, start) = leading();
    writer.grant(LeaseId(1), TTL);
    lessor.arm(start);
    let late = start + secs(11);
    assert_eq!(lessor.renew(LeaseId(1), late), Renewal::Ending, "even before anyone took it");
    assert_eq!(lessor.expired(late, 10), [LeaseId(1)]);
    assert_eq!(lessor.expired(late + secs(6), 10), []);
    assert_eq!(lessor.renew(LeaseId(1), late + secs(6)), Renewal::Ending);
    assert_eq!(lessor.expired(late + EXPIRE_RETRY, 10), [LeaseId(1)]);
    lessor.release(&[LeaseId(1)], late + secs(8));
    assert_eq!(lessor.expired(late + secs(8), 10), [LeaseId(1)], "released: at once");
    let ended = lessor.ended();
    assert!(writer.remove(LeaseId(1)) && !writer.remove(LeaseId(1)));
    assert!(!ended.has_changed().unwrap());
    writer.announce();
    assert!(ended.has_changed().unwrap());
    assert_eq!(lessor.renew(LeaseId(1), late + secs(8)), Renewal::Unknown);
    assert_eq!(lessor.expired(late + secs(30), 10), []);
}

/// Etcd issue 20615. Cause: the leader renewed a lease whose revoke was already proposed. Symptom:
/// a keep-alive answers with a time and the lease is gone. Now a revoke closes the lease first.
#[test]
fn a_keep_alive_does_not_succeed_after_the_revoke_was_proposed() {
    let (mut writer, lessor, start) = leading();
    writer.grant(LeaseId(1), 100);
    lessor.begin_revoke(LeaseId(1), start);
    assert_eq!(lessor.renew(LeaseId(1), start + secs(1)), Renewal::Ending);
    assert_eq!(lessor.expired(start + secs(1), 10), [], "it is not expired");
    lessor.release(&[LeaseId(1)], start + secs(2));
    assert!(matches!(lessor.renew(LeaseId(1), start + secs(2)), Renewal::Renewed { .. }));
    lessor.begin_revoke(LeaseId(1), start + secs(3));
    let lost = start + secs(3) + EXPIRE_RETRY;
    assert!(matches!(lessor.renew(LeaseId(1), lost), Renewal::Renewed { .. }), "a lost proposal is forgotten");
}

#[test]
fn a_promotion_starts_from_the_checkpoint_or_the_full_time() {
    let (mut writer, lessor, start) = leading();
    writer.grant(LeaseId(1), 20);
    writer.grant(LeaseId(2), 20);
    assert_eq!(writer.checkpoint(LeaseId(2), 5), Some(LeaseRecord { ttl_secs: 20, remaining_secs: 5 }));
    assert_eq!(writer.checkpoint(LeaseId(3), 5), None);
    lessor.arm(start);
    lessor.demote();
    assert_eq!(lessor.renew(LeaseId(1), start + secs(5)), Renewal::NotLeading);
    assert_eq!(lessor.expired(start + secs(500), 10), []);
    let now = start + secs(1000);
    lessor.promote(now, secs(1));
    assert_eq!(lessor.remaining(LeaseId(1), now).unwrap().remaining_secs, 20);
    assert_eq!(lessor.remaining(LeaseId(2), now).unwrap().remaining_secs, 5);
    assert_eq!(lessor.ids(), [LeaseId(2), LeaseId(1)]);
    assert_eq!(lessor.renew(LeaseId(2), now), Renewal::Renewed { ttl_secs: 20, reset_checkpoint: true });
    writer.checkpoint(LeaseId(2), 0);
    assert_eq!(lessor.renew(LeaseId(2), now), Renewal::Renewed { ttl_secs: 20, reset_checkpoint: false });
}

/// Etcd issue 17132. Cause: what a checkpoint said was known to the leader's clocks alone. Symptom: after some changes of
/// the leader a lease had its full time again. Now it is in the lease's record, for every promotion to come.
#[test]
fn issue_17132_a_checkpoint_outlives_every_change_of_the_leader() {
    let (mut writer, lessor, start) = leading();
    writer.grant(LeaseId(1), 600);
    lessor.arm(start);
    writer.checkpoint(LeaseId(1), 300).expect("it is there");
    for change in 1..=5 {
        lessor.demote();
        let now = start + secs(1000 * change);
        lessor.promote(now, Duration::ZERO);
        let left = lessor.remaining(LeaseId(1), now).unwrap().remaining_secs;
        assert!((299..=300).contains(&left), "{left} s after change {change}");
    }
}

#[test]
fn an_id_that_is_granted_again_has_only_its_new_deadline() {
    let (mut writer, lessor, start) = leading();
    writer.grant(LeaseId(1), 5);
    lessor.arm(start);
    writer.remove(LeaseId(1));
    writer.grant(LeaseId(1), 50);
    lessor.arm(start);
    assert_eq!(lessor.expired(start + secs(49), 10), []);
    assert_eq!(lessor.expired(start + secs(51), 10), [LeaseId(1)]);
}

#[test]
fn stale_heap_entries_are_bounded() {
    let (mut writer, lessor, start) = leading();
    for _ in 0..20_000 {
        writer.grant(LeaseId(1), 9_000_000_000);
        lessor.arm(start);
        writer.remove(LeaseId(1));
    }
    assert!(lessor.shard(LeaseId(1)).heap_len() < 2000);
    assert!(lessor.is_empty());
}

/// Etcd issue 9360. Cause: leases that are due at once were ended one by one, without a bound. Symptom: a storm of
/// proposals in which everything else starved. Now they are handed out in parts, and each part is one entry.
#[test]
fn issue_9360_at_most_max_are_handed_out_and_the_rest_follows() {
    let (mut writer, lessor, start) = leading();
    for id in 1..=1000 {
        writer.grant(LeaseId(id), TTL);
    }
    lessor.arm(start);
    let now = start + secs(11);
    let parts: Vec<_> = (0..4).map(|_| lessor.expired(now, 250)).collect();
    assert!(parts.iter().all(|part| part.len() == 250), "none is larger than was asked for");
    let mut all = parts.concat();
    all.sort_unstable();
    assert_eq!(all, (1..=1000).map(LeaseId).collect::<Vec<_>>());
    assert_eq!(lessor.expired(now, 250), []);
}

#[test]
fn leases_are_listed_by_their_end() {
    let (mut writer, lessor, start) = leading();
    for (id, ttl) in [(1, 300), (2, 100), (-3, 200)] {
        writer.grant(LeaseId(id), ttl);
    }
    lessor.arm(start);
    assert_eq!(lessor.ids(), [LeaseId(2), LeaseId(-3), LeaseId(1)]);
}

#[test]
fn checkpoints_come_for_what_shrank_much_also_at_a_stop() {
    let (mut writer, lessor, start) = leading();
    writer.grant(LeaseId(1), 1000);
    writer.grant(LeaseId(2), 20);
    lessor.arm(start);
    let round = |now| (0..SHARDS).flat_map(|_| lessor.checkpoints(now, 100)).collect::<Vec<_>>();
    assert_eq!(round(start + secs(15)), []);
    let half = start + secs(501);
    assert_eq!(round(half), [(LeaseId(1), 500)]);
    writer.checkpoint(LeaseId(1), 500);
    assert_eq!(round(half), []);
    lessor.renew(LeaseId(1), half);
    assert_eq!(round(half), [(LeaseId(1), 0)]);
    writer.checkpoint(LeaseId(1), 0);
    lessor.checkpoints_done([LeaseId(1)]);
    assert_eq!(round(half + secs(10)), []);
    assert_eq!(round(half + secs(600)), [(LeaseId(1), 401)]);
}

#[test]
fn a_renewal_beside_a_checkpoint_that_is_under_way_asks_for_its_reset() {
    // Cause: only applied checkpoints were seen. Symptom: a lease renewed while its checkpoint was on its way had
    // the checkpoint's time after a crash, though its client had been told the full one.
    let (mut writer, lessor, start) = leading();
    writer.grant(LeaseId(1), 1000);
    lessor.arm(start);
    let half = start + secs(501);
    assert!((0..SHARDS).any(|_| lessor.checkpoints(half, 100) == [(LeaseId(1), 500)]));
    let renewed = |at, reset_checkpoint| {
        assert_eq!(lessor.renew(LeaseId(1), at), Renewal::Renewed { ttl_secs: 1000, reset_checkpoint });
    };
    renewed(half, true);
    writer.checkpoint(LeaseId(1), 0);
    renewed(half, true);
    writer.checkpoint(LeaseId(1), 500);
    lessor.checkpoints_done([LeaseId(1)]);
    renewed(half, true);
    writer.checkpoint(LeaseId(1), 0);
    renewed(half, false);
    assert!((0..SHARDS).any(|_| lessor.checkpoints(half + secs(501), 100) == [(LeaseId(1), 500)]));
    renewed(half + secs(501) + EXPIRE_RETRY, false);
}

#[test]
fn a_pause_of_the_process_is_given_to_the_leases_that_lived_before_it() {
    let (mut writer, lessor, start) = leading();
    writer.grant(LeaseId(1), TTL);
    writer.grant(LeaseId(2), 5);
    lessor.arm(start);
    let (before, after) = (start + secs(6), start + secs(21));
    assert_eq!(lessor.renew(LeaseId(1), after), Renewal::Ending, "asked before anyone saw the pause");
    let mut ended = lessor.ended();
    ended.mark_unchanged();
    lessor.extend(before, after);
    assert!(ended.has_changed().unwrap(), "who waits asks again");
    assert_eq!(lessor.expired(after, 10), [LeaseId(2)], "that one had run out before");
    assert_eq!(lessor.remaining(LeaseId(1), after).unwrap().remaining_secs, 3);
    assert_eq!(lessor.renew(LeaseId(1), after), Renewal::Renewed { ttl_secs: TTL, reset_checkpoint: false });
    assert_eq!(lessor.expired(after + secs(10), 10), [LeaseId(2)]);
    assert_eq!(lessor.expired(after + secs(11), 10), [LeaseId(1)]);
}

#[test]
fn absurd_times_do_not_overflow() {
    let (mut writer, lessor, start) = leading();
    for (id, ttl) in [(1, i64::MAX), (2, i64::MIN), (3, 0)] {
        writer.insert(LeaseId(id), LeaseRecord { ttl_secs: ttl, remaining_secs: i64::MAX });
    }
    lessor.promote(start, Duration::MAX);
    assert_eq!(lessor.expired(start + secs(1_000_000), 10), []);
    lessor.promote(start, Duration::ZERO);
    for id in 1..=3 {
        lessor.renew(LeaseId(id), start);
        lessor.remaining(LeaseId(id), start);
    }
    for _ in 0..SHARDS {
        lessor.checkpoints(start, 10);
    }
}

#[test]
fn who_waits_for_an_end_is_woken_when_it_will_not_come() {
    let (mut writer, lessor, start) = leading();
    writer.grant(LeaseId(1), TTL);
    let mut ended = lessor.ended();
    lessor.release(&[LeaseId(1)], start);
    assert!(ended.has_changed().unwrap());
    ended.mark_unchanged();
    lessor.demote();
    assert!(ended.has_changed().unwrap());
}
