//! A network of 256 addresses that nobody else on this machine has, for programs that make some side by side.
//!
//! ```text
//! first choice, the next one, … ─► a file for each in the temporary directory ─► locked: ours, until drop or our end
//! ```
//! The kernel takes the same addresses on two bridges, and then answers to one of them.

use std::fs::File;
use std::net::Ipv4Addr;

/// The numbers that a network may have: 1 to this.
const NUMBERS: u32 = 254;

/// One that is ours.
pub(crate) struct Subnet {
    /// What all its addresses begin with.
    net: [u8; 3],
    /// No program that is started inherits it, so it ends with us.
    _held: File,
}

impl Subnet {
    /// One below `range`; the one that `first` leads to if nobody has it.
    ///
    /// # Errors
    /// All are taken, or no file can be made.
    pub(crate) fn claim(range: [u8; 2], first: u32) -> Result<Self, String> {
        for step in 0..NUMBERS {
            let number = first.wrapping_add(step) % NUMBERS + 1;
            let net = [range[0], range[1], number as u8];
            let path = std::env::temp_dir().join(format!("rusd-net-{}.{}.{number}.lock", range[0], range[1]));
            let file = File::options().create(true).append(true).open(&path);
            let file = file.map_err(|error| format!("{}: {error}", path.display()))?;
            if file.try_lock().is_ok() {
                return Ok(Self { net, _held: file });
            }
        }
        Err(format!("all networks below {}.{} are taken", range[0], range[1]))
    }

    /// Its address with this last number.
    pub(crate) fn address(&self, last: u8) -> Ipv4Addr {
        let [a, b, c] = self.net;
        Ipv4Addr::new(a, b, c, last)
    }
}

/// Cause: the number came from the process alone. Symptom: two programs whose processes are neighbours had one network, and
/// members of one were asked for by the other. Now who comes second takes another.
#[test]
fn two_never_have_the_same_network() {
    let claim = |first| Subnet::claim([198, 19], first).expect("a network");
    let (first, second) = (claim(253), claim(253));
    assert_ne!(first.address(1), second.address(1));
    assert!(first.address(7).to_string().starts_with("198.19.") && first.address(7).to_string().ends_with(".7"));
}
