//! What each point is told to do.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};

use super::term::{Action, Terms};
use super::{NAMES, Point};

/// As a Go program that panicked.
const PANICKED: i32 = 2;

/// By point.
pub(super) type Told = [Option<Terms>; NAMES.len()];

static TOLD: Mutex<Told> = Mutex::new([const { None }; NAMES.len()]);
/// Points that were told anything: while there is none, a point costs one load.
static ACTIVE: AtomicUsize = AtomicUsize::new(0);
static CHANCE: AtomicU32 = AtomicU32::new(1);

/// The place of a name.
pub(super) fn place(name: &str) -> Option<usize> {
    NAMES.iter().position(|known| *known == name)
}

/// Everything that was told; while it is held, no point acts.
pub(super) fn told() -> MutexGuard<'static, Told> {
    TOLD.lock()
}

/// Tells the point at `place` something else.
pub(super) fn tell(told: &mut Told, place: usize, terms: Option<Terms>) {
    if let Some(slot) = told.get_mut(place) {
        *slot = terms;
    }
    ACTIVE.store(told.iter().flatten().count(), Ordering::Release);
}

pub(super) fn hit(point: Point) {
    if ACTIVE.load(Ordering::Acquire) == 0 {
        return;
    }
    let place = point as usize;
    // Weyl's sequence is even enough for percentages.
    let chance = CHANCE.fetch_add(0x9e37_79b9, Ordering::Relaxed) % 1_000_000;
    let action = TOLD.lock()[place].as_mut().map(|terms| terms.next(chance));
    let name = NAMES[place];
    match action {
        None | Some(Action::Nothing) => {}
        #[expect(
            clippy::disallowed_methods,
            reason = "a failpoint stands in the way of its thread: that is what it is for"
        )]
        Some(Action::Sleep(time)) => std::thread::sleep(time),
        Some(Action::Print(text)) => eprintln!("failpoint print: {name} {text}"),
        Some(Action::Panic(text)) => {
            eprintln!("failpoint panic: {name} {text}");
            // A panic would end one task; what tests of etcd wait for is the end of the process, at this very place.
            std::process::exit(PANICKED);
        }
    }
}
