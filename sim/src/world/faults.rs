//! What goes wrong, and when it is put right again: all of it from the seed.

use std::time::Duration;

use rusd::env::DiskOp;
use rusd_sim::random::Rand;

use super::disk::Point;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

/// What becomes of what a member is told, or tells, while it is deaf or mute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Packets are lost. A deaf member can still begin a connection: turmoil brings the answer to a SYN round the network.
    Lost,
    /// Connections can be made, and what was said waits until the end, as in a proxy or a firewall in between.
    Held,
}

/// Something that goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The power of one member goes, and comes again after a while.
    Cut { member: usize, torn: bool, down: Duration },
    /// The power of all members goes at once.
    CutAll { torn: bool, down: Duration },
    /// The process is killed; its disk forgets nothing.
    Kill { member: usize, down: Duration },
    /// The power goes at an operation of the disk to come, which is made slow before.
    CutAt { member: usize, point: Point, torn: bool },
    /// The same at several members, on their next syncs: what was voted or acknowledged must be there.
    CutAllAt { point: Point },
    /// The leader dies, one member votes for another, and its power goes between the vote's write and its
    /// sync; then the two that don't know of the vote are left alone with each other. If the vote was
    /// answered, its term gets two leaders.
    VoteTrap,
    /// A slow disk.
    Slow { member: usize, most: Duration, lasts: Duration },
    /// A disk without a byte left, for a while.
    Full { member: usize, lasts: Duration },
    /// An operation to come fails.
    Fail { member: usize, op: DiskOp, after: u64, errno: i32 },
    /// Two members don't hear each other.
    Partition { a: usize, b: usize, lasts: Duration },
    /// One isn't heard by the other.
    OneWay { from: usize, to: usize, lasts: Duration },
    /// One member and the others don't hear each other.
    Isolate { member: usize, lasts: Duration },
    /// One member hears nobody, and the others hear it.
    Deaf { member: usize, way: Way, lasts: Duration },
    /// Nobody hears one member, and it hears the others.
    Mute { member: usize, way: Way, lasts: Duration },
    /// What two say to each other waits, and then comes at once.
    Hold { a: usize, b: usize, lasts: Duration },
    /// A slow network.
    Latency { most: Duration, lasts: Duration },
    /// The process stands still: nothing of it runs, what is said to it waits, and then its clock has gone on.
    Pause { member: usize, lasts: Duration },
    /// Its clock alone jumps ahead, by more than what passes for no pause.
    Jump { member: usize, by: Duration },
    /// Somebody sets the wall clock.
    Wall { member: usize, by_micros: i64 },
}

impl Fault {
    /// Whose it is, if it is one member's.
    pub(crate) fn member(&self) -> Option<usize> {
        match self {
            Self::Cut { member, .. }
            | Self::Kill { member, .. }
            | Self::CutAt { member, .. }
            | Self::Slow { member, .. }
            | Self::Full { member, .. }
            | Self::Fail { member, .. }
            | Self::Pause { member, .. }
            | Self::Jump { member, .. } => Some(*member),
            _ => None,
        }
    }
}

fn millis(rand: &mut Rand, least: u64, most: u64) -> Duration {
    Duration::from_millis(rand.between(least, most))
}

/// A power cut's operation; before the sync after a write is the one that matters most.
fn point(rand: &mut Rand) -> Point {
    let (op, most) = match rand.below(10) {
        0..6 => (DiskOp::Sync, 30),
        6 => (DiskOp::Write, 30),
        7 => (DiskOp::Rename, 1),
        8 => (DiskOp::SyncDir, 1),
        _ => (DiskOp::Open, 1),
    };
    Point { op, left: rand.below(most), after: rand.chance(40) }
}

/// The next thing to go wrong.
///
/// `places` are those where a member may be, `members` the number that began.
pub(crate) fn choose(rand: &mut Rand, places: usize, members: usize) -> Fault {
    let member = rand.index(places);
    let other = (member + 1 + rand.index(places.saturating_sub(1))) % places;
    let down = millis(rand, 50, 3_000);
    let lasts = millis(rand, 200, 5_000);
    let torn = rand.chance(50);
    let way = if torn { Way::Lost } else { Way::Held };
    let bound = match members {
        1 => 52,
        3 => 110,
        _ => 100,
    };
    match rand.below(bound) {
        0..6 => Fault::Cut { member, torn, down },
        6..12 => Fault::CutAll { torn, down },
        12..16 => Fault::Kill { member, down },
        16..28 => Fault::CutAt { member, point: point(rand), torn },
        28..33 => {
            let after = rand.chance(50);
            Fault::CutAllAt { point: Point { op: DiskOp::Sync, left: rand.below(6), after } }
        }
        33..38 => Fault::Slow { member, most: millis(rand, 5, 60), lasts },
        38..41 => Fault::Full { member, lasts },
        41..46 => {
            let op = [DiskOp::Write, DiskOp::Sync, DiskOp::Open, DiskOp::Rename, DiskOp::SyncDir][rand.index(5)];
            let errno = if rand.chance(50) { EIO } else { ENOSPC };
            Fault::Fail { member, op, after: rand.below(20), errno }
        }
        46..48 => Fault::Jump { member, by: millis(rand, 1_500, 6_000) },
        48 | 93..96 => Fault::Pause { member, lasts: millis(rand, 300, 6_000) },
        49..52 => Fault::Wall { member, by_micros: rand.below(7_200_000_000) as i64 - 3_600_000_000 },
        52..64 => Fault::Partition { a: member, b: other, lasts },
        64..76 => Fault::OneWay { from: member, to: other, lasts },
        76..80 => Fault::Isolate { member, lasts },
        80..83 => Fault::Deaf { member, way, lasts },
        83..86 => Fault::Mute { member, way, lasts },
        86..93 => Fault::Hold { a: member, b: other, lasts },
        100.. => Fault::VoteTrap,
        _ => Fault::Latency { most: millis(rand, 20, 300), lasts },
    }
}
