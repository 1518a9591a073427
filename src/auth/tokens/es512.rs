//! ES512: ECDSA over P-521 with SHA-512, the one method that `ring` doesn't have.
//!
//! ```text
//! private: PKCS#8 ─► its curve ─► SEC 1 ─► its curve, its public half ─► number ─► Signer ─► r and s, 66 bytes each
//! public:  the key's bits ─► a point of the curve ─► Verifier
//! ```

use p521::ecdsa::signature::{RandomizedSigner as _, Verifier as _};
use p521::ecdsa::{Signature, SigningKey, VerifyingKey};
use p521::elliptic_curve::rand_core::{self, CryptoRng, RngCore};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::keys::{BIT_STRING, EC_PUBLIC_KEY, OCTET_STRING, PARAMETERS, SEQUENCE, element};

/// The curve's object identifier.
const CURVE: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];
/// A number of the curve, as keys and signatures have it.
const NUMBER_LEN: usize = 66;
/// A point of the curve that isn't compressed: what it is, and two numbers.
const POINT_LEN: usize = 1 + 2 * NUMBER_LEN;
/// The field of a SEC 1 key with its public half.
const PUBLIC: u8 = 0xa1;
const INTEGER: u8 = 0x02;

pub(super) struct Signer(SigningKey);

impl Signer {
    /// From a key in PKCS#8; `None` if it isn't one of this curve.
    pub(super) fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let (fields, _) = element(der, SEQUENCE)?;
        let (_version, fields) = element(fields, INTEGER)?;
        let (algorithm, fields) = element(fields, SEQUENCE)?;
        if algorithm.strip_prefix(EC_PUBLIC_KEY)? != CURVE {
            return None;
        }
        Self::from_sec1(element(fields, OCTET_STRING)?.0)
    }

    /// The same from one in the form of SEC 1.
    pub(super) fn from_sec1(der: &[u8]) -> Option<Self> {
        let (fields, _) = element(der, SEQUENCE)?;
        let (_version, fields) = element(fields, INTEGER)?;
        let (number, mut fields) = element(fields, OCTET_STRING)?;
        if let Some((curve, rest)) = element(fields, PARAMETERS) {
            if curve != CURVE {
                return None;
            }
            fields = rest;
        }
        // A shorter one would be filled up with zeros.
        let key = (number.len() == NUMBER_LEN).then(|| SigningKey::from_slice(number).ok())?;
        let signer = Self(key?);
        match element(fields, PUBLIC) {
            // The first byte says how many bits of the last one are unused.
            Some((public, _)) if element(public, BIT_STRING)?.0.strip_prefix(&[0])? != signer.public() => None,
            _ => Some(signer),
        }
    }

    /// The bits of the public half, as a public key's file has them.
    pub(super) fn public(&self) -> Vec<u8> {
        VerifyingKey::from(&self.0).to_encoded_point(false).as_bytes().to_vec()
    }

    /// `None` without random numbers.
    pub(super) fn sign(&self, message: &[u8], random: &SystemRandom) -> Option<Vec<u8>> {
        let mut random = Random { of: random, failed: false };
        let signature: Signature = self.0.try_sign_with_rng(&mut random, message).ok()?;
        (!random.failed).then(|| signature.to_bytes().to_vec())
    }
}

pub(super) struct Verifier(VerifyingKey);

impl Verifier {
    /// From the bits of a public key; `None` if they are no point of the curve.
    pub(super) fn new(bits: &[u8]) -> Option<Self> {
        (bits.len() == POINT_LEN).then(|| VerifyingKey::from_sec1_bytes(bits).ok())?.map(Self)
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        Signature::from_slice(signature).is_ok_and(|signature| self.0.verify(message, &signature).is_ok())
    }
}

/// Random numbers as the other methods use them. Where there are none, the signature that was made must not be seen.
struct Random<'a> {
    of: &'a SystemRandom,
    failed: bool,
}

impl RngCore for Random<'_> {
    fn next_u32(&mut self) -> u32 {
        rand_core::impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        rand_core::impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, bytes: &mut [u8]) {
        if self.of.fill(bytes).is_err() {
            self.failed = true;
            // Small enough a number, so that whoever waits for one goes on.
            bytes.fill(0);
            bytes.iter_mut().rev().take(1).for_each(|last| *last = 1);
        }
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), rand_core::Error> {
        self.fill_bytes(bytes);
        Ok(())
    }
}

impl CryptoRng for Random<'_> {}
