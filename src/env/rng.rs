//! Random numbers: from the kernel in production, from a seed in tests.

use std::fmt;

use parking_lot::Mutex;

/// A source of random numbers.
pub trait Rng: fmt::Debug + Send + Sync {
    /// 64 random bits.
    fn next_u64(&self) -> u64;

    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// The kernel's generator; fit for tokens and secrets.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRng;

impl Rng for SystemRng {
    fn next_u64(&self) -> u64 {
        let mut word = [0; 8];
        self.fill(&mut word);
        u64::from_le_bytes(word)
    }

    fn fill(&self, bytes: &mut [u8]) {
        let mut done = 0;
        while done < bytes.len() {
            match rustix::rand::getrandom(&mut bytes[done..], rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => done += count,
                Err(rustix::io::Errno::INTR) => {}
                // A weak secret handed out silently would be worse than stopping; Linux has had
                // this call since 3.17 and it doesn't fail once the kernel is up.
                Err(errno) => panic!("the kernel gives no random numbers: {errno}"),
            }
        }
    }
}

/// SplitMix64 from a seed: the same numbers in every run. Not for secrets.
#[derive(Debug)]
pub struct SeededRng(Mutex<u64>);

impl SeededRng {
    /// Starts the sequence of `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(seed))
    }
}

impl Rng for SeededRng {
    fn next_u64(&self) -> u64 {
        let mut state = self.0.lock();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_and_the_kernel_does_not() {
        assert_eq!(SeededRng::new(7).next_u64(), SeededRng::new(7).next_u64());
        assert_ne!(SeededRng::new(7).next_u64(), SeededRng::new(8).next_u64());
        assert_ne!(SystemRng.next_u64(), SystemRng.next_u64());
        let mut bytes = [0; 13];
        SeededRng::new(1).fill(&mut bytes);
        assert!(bytes.iter().any(|byte| *byte != 0));
    }
}
