//! Sizes as Kubernetes writes them.

/// The bytes of a quantity, rounded up. `None`: it is not one, or it is negative or beyond 2^63.
///
/// The suffixes are those of `k8s.io/apimachinery/pkg/api/resource`: binary (`Ki`), decimal (`k`),
/// and an exponent (`1e3`).
pub fn bytes(text: &str) -> Option<u64> {
    const BINARY: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    const DECIMAL: [(&str, i32); 9] =
        [("n", -9), ("u", -6), ("m", -3), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
    let end = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let number = number.strip_prefix('+').unwrap_or(number);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: u128 = digits.parse().ok()?;
    let places = i32::try_from(fraction.len()).ok()?;
    let (factor, exponent) = match suffix {
        "" => (1, 0),
        _ if BINARY.contains(&suffix) => {
            let power = BINARY.iter().position(|known| *known == suffix)? + 1;
            (1_u128 << (10 * power), 0)
        }
        _ => match DECIMAL.iter().find(|(known, _)| *known == suffix) {
            Some((_, exponent)) => (1, *exponent),
            None => (1, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
        },
    };
    // A tenant may write any text: an exponent near the type's limit is no size.
    let exponent = i32::checked_sub(exponent, places)?;
    let scale = 10_u128.checked_pow(exponent.unsigned_abs())?;
    let value = digits.checked_mul(factor)?;
    let value = if exponent < 0 { value.div_ceil(scale) } else { value.checked_mul(scale)? };
    u64::try_from(value).ok().filter(|bytes| i64::try_from(*bytes).is_ok())
}

/// Bytes as a quantity in canonical form: the largest binary suffix without a remainder.
pub fn canonical(bytes: u64) -> String {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let power = if bytes == 0 { 0 } else { (bytes.trailing_zeros() / 10).min(6) };
    format!("{}{}", bytes >> (10 * power), SUFFIXES[power as usize])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that `resource.ParseQuantity` gives for these texts, by its documentation.
    #[test]
    fn quantities_are_those_of_kubernetes() {
        for (text, expected) in [
            ("0", 0),
            ("1", 1),
            ("+5", 5),
            ("1Ki", 1024),
            ("10Gi", 10 << 30),
            ("1.5Gi", 3 << 29),
            ("0.5", 1),
            ("100m", 1),
            ("1500m", 2),
            ("5k", 5000),
            ("3M", 3_000_000),
            ("1e3", 1000),
            ("12E-1", 2),
            ("2E", 2_000_000_000_000_000_000),
            ("7Ei", 7 << 60),
            (".5Ki", 512),
        ] {
            assert_eq!(bytes(text), Some(expected), "{text}");
        }
        for bad in
            ["", "Gi", "-1", "1 Gi", "1gi", "1KiB", "8Ei", "1e99", "0x10", "1.2.3", "e3", "9999999999999999999999999"]
        {
            assert_eq!(bytes(bad), None, "{bad}");
        }
    }

    /// The exponents are the limits of `i32`, and one beyond.
    #[test]
    fn an_exponent_beyond_all_sizes_is_no_size() {
        for exponent in ["-2147483648", "-2147483649", "2147483647", "2147483648", "-39", "39"] {
            for number in ["1", "1.5", ".5", "1.23456789"] {
                assert_eq!(bytes(&format!("{number}e{exponent}")), None, "{number}e{exponent}");
            }
        }
    }

    #[test]
    fn a_canonical_size_parses_to_its_value() {
        for (value, text) in
            [(0, "0"), (1, "1"), (1024, "1Ki"), (1 << 30, "1Gi"), (3 << 29, "1536Mi"), (1_000_000_000, "1000000000")]
        {
            assert_eq!(canonical(value), text);
            assert_eq!(bytes(text), Some(value));
        }
    }
}
