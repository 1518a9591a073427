//! Keys for signed tokens, from PEM files to what signs and verifies.
//!
//! ```text
//! PEM ─► label, DER ─┬► private: PKCS#8, PKCS#1 (RSA), SEC 1 (EC, put into PKCS#8) ─► key pair ─► its public half
//!                    └► public: SubjectPublicKeyInfo, PKCS#1, a certificate ─► the key's bits
//! ```

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::{
    self, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RsaEncoding, RsaKeyPair,
    UnparsedPublicKey, VerificationAlgorithm,
};

use super::es512;
use super::jwt::{JwtError, Method};

/// The files' contents; at least one is there.
#[derive(Default)]
pub struct JwtKeys {
    /// `pub-key`
    pub public: Option<Vec<u8>>,
    /// `priv-key`; for HMAC the secret itself.
    pub private: Option<Vec<u8>>,
}

/// Signs, if there is a private key, and verifies.
pub(super) struct Keys {
    signer: Option<Signer>,
    verifier: Verifier,
    random: SystemRandom,
}

enum Signer {
    Rsa(RsaKeyPair, &'static dyn RsaEncoding),
    Ec(EcdsaKeyPair),
    Es512(es512::Signer),
    Ed(Ed25519KeyPair),
    Hmac(ring::hmac::Key),
}

enum Verifier {
    Public(&'static dyn VerificationAlgorithm, Vec<u8>),
    Es512(es512::Verifier),
    Hmac(ring::hmac::Key),
}

impl Keys {
    pub(super) fn new(method: Method, keys: &JwtKeys) -> Result<Self, JwtError> {
        let signer = keys.private.as_deref().map(|private| signer(method, private)).transpose()?;
        let public = keys.public.as_deref().filter(|_| method.hmac().is_none());
        let verifier = match (&signer, public) {
            (Some(Signer::Hmac(key)), _) => Verifier::Hmac(key.clone()),
            (None, None) => return Err(JwtError::MissingKey),
            (Some(signer), None) => method.verifier(signer.public())?,
            (signer, Some(public)) => {
                let bits = public_bits(public).ok_or(JwtError::BadKey("pub-key"))?;
                if signer.as_ref().is_some_and(|signer| signer.public() != bits) {
                    return Err(JwtError::KeysDiffer);
                }
                method.verifier(bits)?
            }
        };
        Ok(Self { signer, verifier, random: SystemRandom::new() })
    }

    /// `None` without a key to sign with, or if that fails.
    pub(super) fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        match self.signer.as_ref()? {
            Signer::Rsa(pair, encoding) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(*encoding, &self.random, message, &mut signature).ok()?;
                Some(signature)
            }
            Signer::Ec(pair) => Some(pair.sign(&self.random, message).ok()?.as_ref().to_vec()),
            Signer::Es512(signer) => signer.sign(message, &self.random),
            Signer::Ed(pair) => Some(pair.sign(message).as_ref().to_vec()),
            Signer::Hmac(key) => Some(ring::hmac::sign(key, message).as_ref().to_vec()),
        }
    }

    pub(super) fn can_sign(&self) -> bool {
        self.signer.is_some()
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.verifier {
            Verifier::Public(algorithm, key) => {
                UnparsedPublicKey::new(*algorithm, key).verify(message, signature).is_ok()
            }
            Verifier::Es512(verifier) => verifier.verify(message, signature),
            Verifier::Hmac(key) => ring::hmac::verify(key, message, signature).is_ok(),
        }
    }
}

impl Signer {
    /// The bits of the public half, as a public key's file has them.
    fn public(&self) -> Vec<u8> {
        match self {
            Self::Rsa(pair, _) => pair.public_key().as_ref().to_vec(),
            Self::Ec(pair) => pair.public_key().as_ref().to_vec(),
            Self::Es512(signer) => signer.public(),
            Self::Ed(pair) => pair.public_key().as_ref().to_vec(),
            Self::Hmac(_) => Vec::new(),
        }
    }
}

fn signer(method: Method, private: &[u8]) -> Result<Signer, JwtError> {
    let bad = || JwtError::BadKey("priv-key");
    if let Some(algorithm) = method.hmac() {
        if private.is_empty() {
            return Err(bad());
        }
        let wanted = algorithm.digest_algorithm().output_len();
        if private.len() < wanted {
            tracing::warn!(bytes = private.len(), wanted, "the secret that signs tokens is short enough to be guessed");
        }
        return Ok(Signer::Hmac(ring::hmac::Key::new(algorithm, private)));
    }
    let (label, der) = pem(private).ok_or_else(bad)?;
    if let Some(encoding) = method.rsa() {
        let pair = match label.as_str() {
            "RSA PRIVATE KEY" => RsaKeyPair::from_der(&der),
            _ => RsaKeyPair::from_pkcs8(&der),
        };
        return Ok(Signer::Rsa(pair.map_err(|_| bad())?, encoding));
    }
    if let Some((algorithm, curve)) = method.ecdsa() {
        let der = if label == "EC PRIVATE KEY" { pkcs8_of_ec(&der, curve) } else { der };
        return Ok(Signer::Ec(ec(algorithm, &der).ok_or_else(bad)?));
    }
    if method == Method::Es512 {
        let read = if label == "EC PRIVATE KEY" { es512::Signer::from_sec1 } else { es512::Signer::from_pkcs8 };
        return Ok(Signer::Es512(read(&der).ok_or_else(bad)?));
    }
    Ok(Signer::Ed(Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der).map_err(|_| bad())?))
}

fn ec(algorithm: &'static EcdsaSigningAlgorithm, der: &[u8]) -> Option<EcdsaKeyPair> {
    EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new()).ok()
}

/// The label and bytes of the first key or certificate of a PEM text; `EC PARAMETERS` before it are passed over.
fn pem(text: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut rest = std::str::from_utf8(text).ok()?;
    loop {
        let (_, begun) = rest.split_once("-----BEGIN ")?;
        let (label, body) = begun.split_once("-----")?;
        let (body, after) = body.split_once(&format!("-----END {label}-----"))?;
        if label != "EC PARAMETERS" {
            let base64: String = body.split_whitespace().collect();
            return Some((label.to_owned(), STANDARD.decode(base64).ok()?));
        }
        rest = after;
    }
}

/// The bits of a public key, of a certificate's if it is one.
fn public_bits(text: &[u8]) -> Option<Vec<u8>> {
    let (label, der) = pem(text)?;
    match label.as_str() {
        "RSA PUBLIC KEY" => Some(der),
        "CERTIFICATE" => {
            let (mut certificate, _) = element(&der, SEQUENCE)?;
            let (mut fields, _) = element(certificate, SEQUENCE)?;
            certificate = fields;
            if let Some((_, rest)) = element(certificate, VERSION_FIELD) {
                fields = rest;
            }
            // Serial number, signature algorithm, issuer, validity, subject.
            for _ in 0..5 {
                fields = any_element(fields)?;
            }
            bits_of_info(fields)
        }
        _ => bits_of_info(&der),
    }
}

pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
/// The object identifier of keys of elliptic curves.
pub(super) const EC_PUBLIC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// The field of a SEC 1 key with its curve.
pub(super) const PARAMETERS: u8 = 0xa0;
/// The explicit version of a certificate.
const VERSION_FIELD: u8 = 0xa0;

/// The bits of a `SubjectPublicKeyInfo`.
fn bits_of_info(der: &[u8]) -> Option<Vec<u8>> {
    let (info, _) = element(der, SEQUENCE)?;
    let (_, after_algorithm) = element(info, SEQUENCE)?;
    let (bits, _) = element(after_algorithm, BIT_STRING)?;
    // The first byte says how many bits of the last one are unused.
    let (unused, bits) = bits.split_first()?;
    (*unused == 0).then(|| bits.to_vec())
}

/// The content of a DER element with this tag, and what is after it.
pub(super) fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (len, rest) = match *first {
        short @ 0..0x80 => (usize::from(short), rest),
        long => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            if bytes.len() > 4 {
                return None;
            }
            (bytes.iter().fold(0_usize, |len, byte| len << 8 | usize::from(*byte)), rest)
        }
    };
    if *found != tag {
        return None;
    }
    rest.split_at_checked(len)
}

/// What is after the next element, whatever it is.
fn any_element(der: &[u8]) -> Option<&[u8]> {
    element(der, *der.first()?).map(|(_, rest)| rest)
}

/// A SEC 1 key in the PKCS#8 form that `ring` reads.
fn pkcs8_of_ec(sec1: &[u8], curve: &[u8]) -> Vec<u8> {
    let algorithm = wrapped(SEQUENCE, &[EC_PUBLIC_KEY, curve].concat());
    let version = [0x02, 0x01, 0x00];
    wrapped(SEQUENCE, &[&version[..], &algorithm, &wrapped(OCTET_STRING, &without_parameters(sec1))].concat())
}

/// OpenSSL repeats the curve inside (`[0]`), which `ring` doesn't take.
fn without_parameters(sec1: &[u8]) -> Vec<u8> {
    let Some((mut fields, _)) = element(sec1, SEQUENCE) else { return sec1.to_vec() };
    let mut kept = Vec::new();
    while let Some(rest) = any_element(fields) {
        let field = &fields[..fields.len() - rest.len()];
        if field[0] != PARAMETERS {
            kept.extend_from_slice(field);
        }
        fields = rest;
    }
    wrapped(SEQUENCE, &kept)
}

fn wrapped(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(len @ 0..0x80) => out.push(len),
        Ok(len) => out.extend([0x81, len]),
        Err(_) => {
            out.push(0x82);
            // A key is far shorter than 64 KiB.
            out.extend(u16::try_from(content.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    out.extend_from_slice(content);
    out
}

impl Method {
    /// What looks at signatures, by the bits of a public key.
    fn verifier(self, bits: Vec<u8>) -> Result<Verifier, JwtError> {
        let algorithm: &dyn VerificationAlgorithm = match self {
            Self::Rs256 => &signature::RSA_PKCS1_2048_8192_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_2048_8192_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_2048_8192_SHA512,
            Self::Ps256 => &signature::RSA_PSS_2048_8192_SHA256,
            Self::Ps384 => &signature::RSA_PSS_2048_8192_SHA384,
            Self::Ps512 => &signature::RSA_PSS_2048_8192_SHA512,
            Self::Es256 => &signature::ECDSA_P256_SHA256_FIXED,
            Self::Es384 => &signature::ECDSA_P384_SHA384_FIXED,
            Self::Es512 => {
                let verifier = es512::Verifier::new(&bits).ok_or(JwtError::BadKey("pub-key"))?;
                return Ok(Verifier::Es512(verifier));
            }
            Self::EdDsa => &signature::ED25519,
            // A secret has no public half: it has to be the private key.
            Self::Hs256 | Self::Hs384 | Self::Hs512 => return Err(JwtError::MissingKey),
        };
        if self.bits_len().is_some_and(|len| len != bits.len()) {
            return Err(JwtError::BadKey("pub-key"));
        }
        Ok(Verifier::Public(algorithm, bits))
    }

    /// How many bytes of bits a public key has, where they are always as many: others are of another curve.
    fn bits_len(self) -> Option<usize> {
        match self {
            Self::Es256 => Some(65),
            Self::Es384 => Some(97),
            Self::EdDsa => Some(32),
            _ => None,
        }
    }

    fn rsa(self) -> Option<&'static dyn RsaEncoding> {
        Some(match self {
            Self::Rs256 => &signature::RSA_PKCS1_SHA256,
            Self::Rs384 => &signature::RSA_PKCS1_SHA384,
            Self::Rs512 => &signature::RSA_PKCS1_SHA512,
            Self::Ps256 => &signature::RSA_PSS_SHA256,
            Self::Ps384 => &signature::RSA_PSS_SHA384,
            Self::Ps512 => &signature::RSA_PSS_SHA512,
            _ => return None,
        })
    }

    /// The algorithm and the curve's object identifier.
    fn ecdsa(self) -> Option<(&'static EcdsaSigningAlgorithm, &'static [u8])> {
        match self {
            Self::Es256 => Some((
                &signature::ECDSA_P256_SHA256_FIXED_SIGNING,
                &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
            )),
            Self::Es384 => {
                Some((&signature::ECDSA_P384_SHA384_FIXED_SIGNING, &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22]))
            }
            _ => None,
        }
    }

    fn hmac(self) -> Option<ring::hmac::Algorithm> {
        match self {
            Self::Hs256 => Some(ring::hmac::HMAC_SHA256),
            Self::Hs384 => Some(ring::hmac::HMAC_SHA384),
            Self::Hs512 => Some(ring::hmac::HMAC_SHA512),
            _ => None,
        }
    }
}
