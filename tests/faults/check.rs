//! What must hold after a fault.
//!
//! 1. Every acknowledged change is in the history at the revision that was answered; what was not
//!    answered is there once or not at all; nothing is there that nobody asked for.
//! 2. The revision is not below any that an answer named; the history has no hole and counts versions.
//! 3. What can be read is what the history adds up to.
//! 4. A new watch from the compaction on gives the same events, each once.
//! 5. Leases that were granted and not ended live, with their keys, and with no more time than granted;
//!    those whose end was answered are gone.
//! 6. An acknowledged compaction still holds.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rusd_proto::etcdserverpb::lease_client::LeaseClient;
use rusd_proto::etcdserverpb::{LeaseLeasesRequest, LeaseTimeToLiveRequest};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use crate::client;
use crate::history::{self, Change, History};
use crate::ledger::{Lease, Ledger, Revoke};

/// Checks all of it on a server that nobody writes to.
pub(crate) async fn check(channel: &Channel, ledger: &Ledger, history: &History, follower: &JoinHandle<()>) {
    let revision = client::revision(channel).await.unwrap();
    assert!(
        revision >= ledger.revision_max,
        "revision {revision}, though {} was named by an answer",
        ledger.revision_max
    );
    history.reach(revision, follower).await;
    let changes = history.until(revision);
    let state = history::replay(&changes);
    if let Err(difference) = ledger.compare(&changes) {
        panic!("{difference}");
    }

    let found = client::everything(channel, revision).await.unwrap();
    let found: BTreeMap<_, _> = found.kvs.into_iter().map(|kv| (kv.key.clone(), kv)).collect();
    let wrong = |key: &&Bytes| found.get(*key) != state.get(*key);
    let wrong: BTreeSet<_> = found.keys().chain(state.keys()).filter(wrong).collect();
    for key in &wrong {
        eprintln!("{key:?}\n  read:  {:?}\n  watch: {:?}", found.get(*key), state.get(*key));
    }
    assert!(wrong.is_empty(), "{} keys at revision {revision} are not what the watch added up to", wrong.len());

    let compacted = history::compact_revision(channel).await;
    assert!(
        (ledger.compacted..=ledger.compact_asked).contains(&compacted),
        "compacted to {compacted}; {} was acknowledged and {} asked for",
        ledger.compacted,
        ledger.compact_asked
    );
    let again = history::between(channel, compacted + 1, revision).await;
    let tail: Vec<&Change> = changes.iter().filter(|change| change.revision > compacted).collect();
    assert!(again.iter().eq(tail.iter().copied()), "a new watch from {} on gives other events", compacted + 1);

    leases(channel, ledger).await;
}

async fn leases(channel: &Channel, ledger: &Ledger) {
    let mut client = LeaseClient::new(channel.clone());
    let listed = client.lease_leases(LeaseLeasesRequest {}).await.unwrap().into_inner();
    let listed: BTreeSet<i64> = listed.leases.iter().map(|lease| lease.id).collect();
    for id in &listed {
        assert!(ledger.leases.contains_key(id), "lease {id} was never asked for");
    }
    for (id, lease) in &ledger.leases {
        if lease.revoke == Revoke::Done {
            assert!(!listed.contains(id), "lease {id} lives, though its end was answered");
        }
        if lease.may_end() || !lease.granted {
            continue;
        }
        assert!(listed.contains(id), "lease {id} is gone: {lease:?}");
        let ask = LeaseTimeToLiveRequest { id: *id, keys: true };
        let answer = client.lease_time_to_live(ask).await.unwrap().into_inner();
        assert_eq!(answer.granted_ttl, Lease::LONG_SECS);
        // An election timeout may come on top after a restart.
        assert!((1..=Lease::LONG_SECS + 2).contains(&answer.ttl), "lease {id} has {} s left", answer.ttl);
        assert!(answer.keys.iter().all(|key| lease.keys.contains(key)), "lease {id} has keys {:?}", answer.keys);
    }
}
