//! Ends streams that asked for a leader once this member has been without one for a while.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tonic::Code;

use super::LeaderCheck;
use crate::types::RequestError;
use crate::watch::{StreamEnd, WatchHub};

/// Election timeouts in a row without a leader after which streams are ended, as in etcd.
const ELECTIONS_MAX: u32 = 3;

/// Runs until it is aborted: looks once an election timeout, and after three without a leader ends the streams that
/// were opened with `hasleader: true`. Their clients go on at another member.
pub async fn end_streams_without_leader(hub: WatchHub, has_leader: LeaderCheck, election_timeout: Duration) {
    let mut tick = interval(election_timeout);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut without = 0;
    loop {
        tick.tick().await;
        without = if has_leader() { 0 } else { without + 1 };
        if without >= ELECTIONS_MAX {
            hub.end_leader_streams(&StreamEnd {
                code: Code::Unavailable as i32,
                message: RequestError::NoLeader.to_string(),
            });
        }
    }
}
