//! The chunker polynomial: draws one for a new repository, and checks that of an existing one.
//!
//! A polynomial over GF(2) is a `u64` whose bit `t` is the coefficient of x^t. Every repository has
//! its own, so that chunk sizes reveal less about the contents. restic's chunker draws the 52 bits
//! between x^53 and 1 until the result is irreducible; the tables and shifts of the scanner hold
//! for that degree only. The irreducibility test is Ben-Or's ("Probabilistic algorithms in finite
//! fields", 1981).

use std::fmt;
use std::str::FromStr;

/// Maximum number of draws of [`Polynomial::random`], as in restic's chunker. About 2 in 53 draws
/// succeed.
const MAX_DRAWS: u32 = 1_000_000;

/// The polynomial x.
const X: u64 = 0b10;

/// An irreducible polynomial over GF(2) of degree 53. Written, as in a repository's `config`, in
/// lower-case hexadecimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Polynomial(u64);

/// Why a value cannot be a repository's chunker polynomial.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolynomialError {
    #[error("chunker polynomial {0:?} is not a hexadecimal number of at most 64 bits")]
    Syntax(String),
    #[error("chunker polynomial {0:x} is not of degree {expected}", expected = Polynomial::DEGREE)]
    Degree(u64),
    #[error("chunker polynomial {0:x} is not irreducible")]
    Reducible(u64),
    #[error("no irreducible polynomial among {0} random draws; the random source must be broken")]
    Exhausted(u32),
}

impl Polynomial {
    /// The only degree restic draws.
    pub const DEGREE: u32 = 53;

    /// Takes the polynomial whose coefficients are the bits of `bits`.
    ///
    /// # Errors
    /// [`PolynomialError::Degree`] and [`PolynomialError::Reducible`]: such values do not give
    /// restic's chunks, or give poor ones.
    pub fn new(bits: u64) -> Result<Self, PolynomialError> {
        if bits.checked_ilog2() != Some(Self::DEGREE) {
            return Err(PolynomialError::Degree(bits));
        }
        if !Self::is_irreducible(bits) {
            return Err(PolynomialError::Reducible(bits));
        }
        Ok(Self(bits))
    }

    /// Draws a polynomial: restic's rule applied to the words `draw` returns, which must come from
    /// a secure source.
    ///
    /// # Errors
    /// [`PolynomialError::Exhausted`] after a million draws.
    pub fn random(mut draw: impl FnMut() -> u64) -> Result<Self, PolynomialError> {
        let top = 1 << Self::DEGREE;
        for _ in 0..MAX_DRAWS {
            // An irreducible polynomial of this degree has the constant term 1: otherwise x divides
            // it.
            let bits = draw() & (top - 1) | top | 1;
            if Self::is_irreducible(bits) {
                return Ok(Self(bits));
            }
        }
        Err(PolynomialError::Exhausted(MAX_DRAWS))
    }

    /// Whether the polynomial `bits`, of any degree, has no divisor but itself and 1 (Ben-Or's
    /// test).
    fn is_irreducible(bits: u64) -> bool {
        let degree = match bits.checked_ilog2() {
            None | Some(0) => return false,
            Some(degree) => degree,
        };
        // x^(2^i) - x is the product of all irreducible polynomials whose degree divides i.
        let mut power = X;
        (1..=degree / 2).all(|_| {
            power = multiply(power, power, bits);
            greatest_common_divisor(bits, power ^ X) == 1
        })
    }

    /// The degree, always 53.
    pub const fn degree(self) -> u32 {
        Self::DEGREE
    }

    /// The coefficients.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// `value * x^power` modulo this polynomial; `value` is of degree below 53.
    pub(super) fn shift(self, value: u64, power: u32) -> u64 {
        debug_assert!(value >> Self::DEGREE == 0, "value is not reduced");
        (0..power).fold(value, |value, _| times_x(value, self.0))
    }
}

impl TryFrom<u64> for Polynomial {
    type Error = PolynomialError;

    fn try_from(bits: u64) -> Result<Self, PolynomialError> {
        Self::new(bits)
    }
}

/// Lower-case hexadecimal without prefix, the form of `chunker_polynomial` in a repository's
/// `config`.
impl fmt::Display for Polynomial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}

/// Hexadecimal in either case, without prefix or sign.
impl FromStr for Polynomial {
    type Err = PolynomialError;

    fn from_str(text: &str) -> Result<Self, PolynomialError> {
        let syntax = || PolynomialError::Syntax(text.to_owned());
        if text.starts_with('+') {
            return Err(syntax());
        }
        Self::new(u64::from_str_radix(text, 16).map_err(|_| syntax())?)
    }
}

/// `value * x` modulo `modulus`, for a reduced `value`.
fn times_x(value: u64, modulus: u64) -> u64 {
    let degree = modulus.ilog2();
    let shifted = value << 1;
    if shifted >> degree & 1 == 1 { shifted ^ modulus } else { shifted }
}

/// `a * b` modulo `modulus`, for a reduced `a`.
fn multiply(mut a: u64, mut b: u64, modulus: u64) -> u64 {
    let mut product = 0;
    while b != 0 {
        if b & 1 == 1 {
            product ^= a;
        }
        a = times_x(a, modulus);
        b >>= 1;
    }
    product
}

/// `value` modulo `modulus`, which is not zero.
fn remainder(mut value: u64, modulus: u64) -> u64 {
    let degree = modulus.ilog2();
    while let Some(top) = value.checked_ilog2().filter(|top| *top >= degree) {
        value ^= modulus << (top - degree);
    }
    value
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, remainder(a, b));
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::testdata::SplitMix;

    /// From the tests of restic's chunker, and drawn by its rule.
    const IRREDUCIBLE: [u64; 4] = [0x3da3358b4dc173, 0x2482734cacca49, 0x25b468838dcb75, 0x2431fa3c80db07];
    const REDUCIBLE: [u64; 4] = [0x38f1e565e288df, 0x20000000000001, 0x200d57aa6fdacb, 0x3548245eb26257];

    #[test]
    fn irreducible_polynomials_are_accepted_and_reducible_ones_are_rejected() {
        for bits in IRREDUCIBLE {
            assert_eq!(Polynomial::new(bits).expect("irreducible").bits(), bits);
        }
        for bits in REDUCIBLE {
            assert_eq!(Polynomial::new(bits), Err(PolynomialError::Reducible(bits)));
        }
    }

    #[test]
    fn small_polynomials_agree_with_trial_division() {
        for bits in 0u64..1 << 11 {
            let has_divisor = (2..bits).any(|d| d.ilog2() * 2 <= bits.ilog2() && remainder(bits, d) == 0);
            assert_eq!(Polynomial::is_irreducible(bits), bits > 1 && !has_divisor, "{bits:#b}");
        }
        // The highest degree that fits: x^63 + x + 1 is irreducible, x + 1 divides x^63 + 1.
        assert!(Polynomial::is_irreducible(1 << 63 | 0b11));
        assert!(!Polynomial::is_irreducible(1 << 63 | 1));
    }

    #[test]
    fn drawing_follows_restics_rule() {
        let mut stream = SplitMix::new(42);
        let mut draws = 0;
        let drawn = Polynomial::random(|| {
            draws += 1;
            stream.word()
        });
        assert_eq!(drawn.expect("found").bits(), 0x2431fa3c80db07);
        assert_eq!(draws, 6);
    }

    #[test]
    fn a_stuck_random_source_is_an_error() {
        // x^53 + 1, which x + 1 divides.
        assert_eq!(Polynomial::random(|| 0), Err(PolynomialError::Exhausted(MAX_DRAWS)));
    }

    #[test]
    fn text_form_is_bare_lower_hex() {
        let polynomial: Polynomial = "3DA3358B4DC173".parse().expect("valid");
        assert_eq!(polynomial.to_string(), "3da3358b4dc173");
        assert_eq!(polynomial.to_string().parse(), Ok(polynomial));
        for bad in ["", "0x3da3358b4dc173", "+3da3358b4dc173", "-1", " 3da3358b4dc173", "13da3358b4dc173aa"] {
            assert_eq!(bad.parse::<Polynomial>(), Err(PolynomialError::Syntax(bad.to_owned())));
        }
    }

    #[test]
    fn other_degrees_are_rejected() {
        for bits in [0, 1, X, 0b111, 1 << 52 | 1, 1 << 54 | 1, u64::MAX] {
            assert_eq!(Polynomial::try_from(bits), Err(PolynomialError::Degree(bits)));
        }
        let error = Polynomial::new(7).expect_err("degree 2");
        assert_eq!(error.to_string(), "chunker polynomial 7 is not of degree 53");
    }
}
