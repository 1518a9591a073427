//! What the process is told, and what it says in the end.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rusd::types::planted::{Bug, plant};

use crate::world::Settings;
use crate::world::alone::Plight;
use crate::world::drive::{self, Verdict};

/// The errors that can be planted, by name.
const BUGS: [(&str, Bug); 7] = [
    ("ack-before-fsync", Bug::AckBeforeFsync),
    ("vote-before-fsync", Bug::VoteBeforeFsync),
    ("apply-twice", Bug::ApplyTwice),
    ("stale-read", Bug::StaleRead),
    ("dropped-event", Bug::DroppedEvent),
    ("lease-early", Bug::LeaseEarly),
    ("deaf-leader", Bug::DeafLeader),
];

/// Some task panicked; tokio would keep it to itself.
static PANICKED: AtomicBool = AtomicBool::new(false);

pub(crate) fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let settings = match read(&args) {
        Ok(settings) => settings,
        Err(fault) => {
            eprintln!("rusd-sim: {fault}");
            return ExitCode::from(2);
        }
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("RUSD_SIM_LOG");
    let filter = filter.unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("off"));
    tracing_subscriber::fmt().with_env_filter(filter).without_time().with_writer(std::io::stderr).init();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // The first one may end the process before the last line: by this one its seed is known, and compared.
        if !PANICKED.swap(true, Ordering::Relaxed) {
            let what = info.payload_as_str().unwrap_or("?").replace('\n', " ");
            let at = info.location().map(ToString::to_string).unwrap_or_default();
            println!("PANIC seed {} members {} at {at}: {what}", settings.seed, settings.members);
        }
        hook(info);
    }));
    #[expect(clippy::disallowed_methods, reason = "real time, to say how long a run took")]
    let begun = Instant::now();
    let (world, mut verdict) = drive::run(settings, begun);
    if PANICKED.load(Ordering::Relaxed) && verdict.faults.is_empty() {
        verdict.faults.push("something panicked: see above".to_owned());
    }
    if verdict.lines == 0 {
        verdict.faults.push("the trace is empty".to_owned());
    }
    if !verdict.faults.is_empty() && !settings.verbose {
        world.known.lock().trace.tail().for_each(|line| eprintln!("{line}"));
    }
    tell(settings, begun, &verdict);
    // What a member left behind must not run any more, and needn't be cleared away.
    std::process::exit(i32::from(!verdict.faults.is_empty()))
}

fn tell(settings: Settings, begun: Instant, verdict: &Verdict) {
    for fault in verdict.faults.iter().take(10) {
        println!("FAULT {fault}");
    }
    let word = if verdict.faults.is_empty() { "ok" } else { "FAILED" };
    println!(
        "seed {} members {} trace {:08x} lines {} simulated {:.1} s in {:.1} s: {word}: {}",
        settings.seed,
        settings.members,
        verdict.crc,
        verdict.lines,
        verdict.simulated.as_secs_f64(),
        begun.elapsed().as_secs_f64(),
        verdict.summary,
    );
}

fn read(args: &[String]) -> Result<Settings, String> {
    let length = Duration::from_secs(40);
    let mut settings = Settings { seed: 1, members: 3, changes: None, leader: None, length, verbose: false };
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        if arg == "--verbose" {
            settings.verbose = true;
            continue;
        }
        let value = args.next().ok_or_else(|| format!("{arg} needs a value"))?;
        let number = || value.parse::<u64>().map_err(|_| format!("{arg} {value}: not a number"));
        match arg.as_str() {
            "--seed" => settings.seed = number()?,
            "--members" => settings.members = number()?.clamp(1, 7) as usize,
            "--changes" => settings.changes = Some(number()? != 0),
            "--seconds" => settings.length = Duration::from_secs(number()?.clamp(5, 3_600)),
            "--leader" => {
                settings.leader = Some(match value.as_str() {
                    "deaf" => Plight::Deaf,
                    "mute" => Plight::Mute,
                    "still" => Plight::Still,
                    _ => return Err(format!("a leader is deaf, mute or still, not {value}")),
                });
            }
            "--plant" => {
                let known = BUGS.iter().find(|(name, _)| name == value);
                plant(known.ok_or_else(|| format!("no error is called {value}"))?.1);
            }
            _ => return Err(format!("{arg} isn't known")),
        }
    }
    Ok(settings)
}
