//! The cryptography of signed requests. A payload is not hashed again: its hash is the file's name.
//!
//! The server compares the payload with that hash, so that a file under a wrong name is refused and
//! not stored.

use crate::hash::Sha256;
use crate::id::Id;
use object_store::client::{CryptoProvider, DigestAlgorithm, DigestContext, HmacContext, Signer, SigningAlgorithm};
use object_store::{Error, Result};
use ring::hmac;
use std::cell::Cell;

tokio::task_local! {
    /// Hash and length of the payload of a request. The first digest, which is the payload's, takes
    /// them.
    static PAYLOAD: Cell<Option<(Id, usize)>>;
}

/// Runs a request whose payload of `length` bytes has the hash `id`.
pub(super) async fn with_known_payload<T>(id: Id, length: usize, request: impl Future<Output = T>) -> T {
    PAYLOAD.scope(Cell::new(Some((id, length))), request).await
}

#[derive(Debug)]
pub(super) struct Provider;

impl CryptoProvider for Provider {
    fn digest(&self, algorithm: DigestAlgorithm) -> Result<Box<dyn DigestContext>> {
        if algorithm != DigestAlgorithm::Sha256 {
            return Err(unsupported("a digest other than SHA-256"));
        }
        Ok(match PAYLOAD.try_with(Cell::take).ok().flatten() {
            Some((id, length)) => Box::new(Known { id, left: Some(length) }),
            None => Box::new(Computed { hash: Sha256::new(), out: [0; 32] }),
        })
    }

    fn hmac(&self, algorithm: DigestAlgorithm, secret: &[u8]) -> Result<Box<dyn HmacContext>> {
        if algorithm != DigestAlgorithm::Sha256 {
            return Err(unsupported("an HMAC other than SHA-256's"));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Ok(Box::new(Hmac { context: hmac::Context::with_key(&key), out: None }))
    }

    fn sign(&self, _: SigningAlgorithm, _: &[u8]) -> Result<Box<dyn Signer>> {
        Err(unsupported("a signature with a private key"))
    }
}

fn unsupported(what: &str) -> Error {
    Error::NotSupported { source: format!("{what} is not used with S3").into() }
}

/// A digest that is known already.
struct Known {
    id: Id,
    /// Bytes that are still to come; `None` after one too many.
    left: Option<usize>,
}

impl DigestContext for Known {
    fn update(&mut self, data: &[u8]) {
        self.left = self.left.and_then(|left| left.checked_sub(data.len()));
    }

    fn finish(&mut self) -> Result<&[u8]> {
        if self.left == Some(0) {
            return Ok(&self.id.0);
        }
        Err(Error::Generic { store: "S3", source: "the first digest was not that of the payload".into() })
    }
}

struct Computed {
    hash: Sha256,
    out: [u8; 32],
}

impl DigestContext for Computed {
    fn update(&mut self, data: &[u8]) {
        self.hash.update(data);
    }

    fn finish(&mut self) -> Result<&[u8]> {
        self.out = std::mem::take(&mut self.hash).finish();
        Ok(&self.out)
    }
}

struct Hmac {
    context: hmac::Context,
    out: Option<hmac::Tag>,
}

impl HmacContext for Hmac {
    fn update(&mut self, data: &[u8]) {
        self.context.update(data);
    }

    fn finish(&mut self) -> Result<&[u8]> {
        let tag = self.out.insert(self.context.clone().sign());
        Ok(hmac::Tag::as_ref(tag))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(parts: &[&[u8]]) -> Result<Vec<u8>> {
        let mut context = Provider.digest(DigestAlgorithm::Sha256)?;
        parts.iter().for_each(|part| context.update(part));
        context.finish().map(<[u8]>::to_vec)
    }

    #[test]
    fn the_first_digest_is_the_payloads_and_no_other() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let named = Id([7; 32]);
        runtime.block_on(with_known_payload(named, 6, async {
            assert_eq!(digest(&[b"pay", b"load"[..3].as_ref()]).unwrap(), named.0);
            assert_eq!(digest(&[b"canonical ", b"request"]).unwrap(), Id::of(b"canonical request").0);
        }));
        assert_eq!(digest(&[b"x"]).unwrap(), Id::of(b"x").0);
        for wrong in [&b"short"[..], b"too long"] {
            runtime.block_on(with_known_payload(named, 6, async { assert!(digest(&[wrong]).is_err()) }));
        }
    }

    /// RFC 4231, test case 2.
    #[test]
    fn hmac_is_the_published_one() {
        let mut context = Provider.hmac(DigestAlgorithm::Sha256, b"Jefe").unwrap();
        context.update(b"what do ya want ");
        context.update(b"for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let hex: String = context.finish().unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }
}
