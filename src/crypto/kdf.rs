//! Derives the key that wraps the master key from a password: scrypt with restic's output layout.

use super::Key;
use crate::limits;
use zeroize::Zeroizing;

/// The cost parameters and salt of one key file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Params {
    pub n: u64,
    pub r: u32,
    pub p: u32,
    pub salt: Vec<u8>,
}

/// Why the parameters of a key file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KdfError {
    #[error(
        "scrypt parameters N={n} r={r} p={p} are not valid (N must be a power of two above 1, r and p at least 1, r*p below 2^30)"
    )]
    Invalid { n: u64, r: u32, p: u32 },
    #[error("the salt has {0} bytes, not 64")]
    Salt(usize),
    #[error("scrypt with N={n} r={r} p={p} needs {needed} bytes of memory, more than the {max} allowed")]
    TooMuchMemory { n: u64, r: u32, p: u32, needed: u64, max: u64 },
}

/// Length of a salt in bytes; restic accepts no other.
pub const SALT: usize = 64;

impl Params {
    /// The parameters of new keys: N=2^15, r=8, p=3, one of the equivalent settings of OWASP's
    /// password storage cheat sheet. A derivation takes 32 MiB of memory on each of its threads for
    /// a moment, which a small mover pod has.
    pub fn for_new_key(salt: [u8; SALT]) -> Params {
        Params { n: 1 << 15, r: 8, p: 3, salt: salt.to_vec() }
    }

    /// Derives the key. Takes 128*N*r bytes of memory while it runs, and refuses parameters that
    /// need more than [`limits::KDF_MEMORY`]. Up to [`limits::KDF_BESIDE`] it uses two threads:
    /// twice the memory, and less time.
    pub fn derive(&self, password: &[u8]) -> Result<Key, KdfError> {
        let Params { n, r, p, ref salt } = *self;
        let invalid = KdfError::Invalid { n, r, p };
        if n < 2 || !n.is_power_of_two() || u64::from(r) * u64::from(p) >= 1 << 30 {
            return Err(invalid);
        }
        if salt.len() != SALT {
            return Err(KdfError::Salt(salt.len()));
        }
        let needed = n.saturating_mul(u64::from(r)).saturating_add(u64::from(r) * u64::from(p)).saturating_mul(128);
        if needed > limits::KDF_MEMORY {
            return Err(KdfError::TooMuchMemory { n, r, p, needed, max: limits::KDF_MEMORY });
        }
        let log_n = u8::try_from(n.trailing_zeros()).expect("at most 63");
        let Ok(params) = scrypt::Params::new(log_n, r, p) else { return Err(invalid) };
        let mut derived = Zeroizing::new([0u8; 64]);
        let beside = if needed <= limits::KDF_BESIDE { 2 } else { 1 };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(beside).build().expect("threads can be started");
        pool.install(|| scrypt::scrypt(password, salt, &params, &mut derived[..]))
            .expect("64 bytes are a valid output length");
        Ok(Key::from_bytes(&derived))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_parameters_are_refused() {
        let params = |n, r, p, salt| Params { n, r, p, salt: vec![1; salt] };
        for bad in
            [params(0, 8, 1, 64), params(3, 8, 1, 64), params(1024, 8, 1, 32), params(1024, 1 << 20, 1 << 20, 64)]
        {
            assert!(bad.derive(b"x").is_err(), "{bad:?}");
        }
        assert!(matches!(params(1 << 40, 8, 1, 64).derive(b"x"), Err(KdfError::TooMuchMemory { .. })));
        assert!(params(1024, 0, 1, 64).derive(b"x").is_err());
    }
}
