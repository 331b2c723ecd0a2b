//! Text as Go writes it: JSON strings as `encoding/json` escapes them, and names as `strconv.Quote`
//! quotes them.
//!
//! restic stores a file name quoted (so that bytes that are not UTF-8 survive) and then as a JSON
//! string. Tree ids depend on every byte of both, which is why neither serde_json's escaping nor
//! Rust's `escape_debug` will do.

use super::printable::is_printable;
use super::{FormatError, Result};

/// Appends `bytes` as a JSON string with its quotes, as Go 1.22 and later do: `<`, `>`, `&`, U+2028
/// and U+2029 are escaped, and each byte that is not part of valid UTF-8 becomes `\ufffd`.
pub fn write_json_string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    for part in bytes.utf8_chunks() {
        write_json_escaped(out, part.valid());
        for _ in part.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
    out.push(b'"');
}

fn write_json_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    let mut copied = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        let (length, escape): (usize, &[u8]) = match byte {
            b'"' => (1, b"\\\""),
            b'\\' => (1, b"\\\\"),
            0x08 => (1, b"\\b"),
            0x0c => (1, b"\\f"),
            b'\n' => (1, b"\\n"),
            b'\r' => (1, b"\\r"),
            b'\t' => (1, b"\\t"),
            b'<' | b'>' | b'&' | 0..0x20 => (1, b""),
            0xe2 if bytes[at..].starts_with("\u{2028}".as_bytes()) => (3, b"\\u2028"),
            0xe2 if bytes[at..].starts_with("\u{2029}".as_bytes()) => (3, b"\\u2029"),
            _ => continue,
        };
        out.extend_from_slice(&bytes[copied..at]);
        if escape.is_empty() {
            write_hex_escape(out, b"\\u00", byte);
        } else {
            out.extend_from_slice(escape);
        }
        copied = at + length;
    }
    out.extend_from_slice(&bytes[copied..]);
}

fn write_hex_escape(out: &mut Vec<u8>, prefix: &[u8], byte: u8) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(prefix);
    out.push(DIGITS[usize::from(byte >> 4)]);
    out.push(DIGITS[usize::from(byte & 15)]);
}

/// Bytes as text for messages and JSON: each byte that is not part of valid UTF-8 becomes U+FFFD,
/// as in Go.
pub fn lossy(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        text.push_str(part.valid());
        text.extend(std::iter::repeat_n('\u{fffd}', part.invalid().len()));
    }
    text
}

/// A name as Go's `strconv.Quote` writes it, without the outer quotes.
pub fn quote(name: &[u8]) -> Vec<u8> {
    if name.iter().all(|&byte| (0x20..0x7f).contains(&byte) && byte != b'"' && byte != b'\\') {
        return name.to_vec();
    }
    let mut out = Vec::with_capacity(name.len() + 16);
    for part in name.utf8_chunks() {
        for c in part.valid().chars() {
            quote_char(&mut out, c);
        }
        for &byte in part.invalid() {
            write_hex_escape(&mut out, b"\\x", byte);
        }
    }
    out
}

fn quote_char(out: &mut Vec<u8>, c: char) {
    let short = match c {
        '"' => b'"',
        '\\' => b'\\',
        '\x07' => b'a',
        '\x08' => b'b',
        '\x0c' => b'f',
        '\n' => b'n',
        '\r' => b'r',
        '\t' => b't',
        '\x0b' => b'v',
        c if is_printable(c) => {
            out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
            return;
        }
        c => {
            let escaped = match u32::from(c) {
                byte @ (0..0x20 | 0x7f) => format!("\\x{byte:02x}"),
                code @ 0..0x1_0000 => format!("\\u{code:04x}"),
                code => format!("\\U{code:08x}"),
            };
            out.extend_from_slice(escaped.as_bytes());
            return;
        }
    };
    out.extend_from_slice(&[b'\\', short]);
}

/// The bytes of a quoted name. Accepts every escape of a Go string literal; a raw quote or newline
/// is an error, as it is in restic.
pub fn unquote(quoted: &str) -> Result<Vec<u8>> {
    let bad = || FormatError::new("a node's name", format!("{quoted:?} is not a quoted string"));
    let mut out = Vec::with_capacity(quoted.len());
    let mut rest = quoted.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'"' | b'\n' => return Err(bad()),
            b'\\' => rest = unescape(rest, &mut out).ok_or_else(bad)?,
            byte => out.push(byte),
        }
    }
    Ok(out)
}

/// Reads one escape after its backslash; returns what follows it.
fn unescape<'a>(rest: &'a [u8], out: &mut Vec<u8>) -> Option<&'a [u8]> {
    let (&kind, rest) = rest.split_first()?;
    let simple = match kind {
        b'"' | b'\\' => kind,
        b'a' => 0x07,
        b'b' => 0x08,
        b'f' => 0x0c,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'v' => 0x0b,
        b'x' => {
            let (code, rest) = digits(rest, 2, 16)?;
            out.push(u8::try_from(code).ok()?);
            return Some(rest);
        }
        b'0'..=b'7' => {
            let (code, rest) = digits(rest, 2, 8)?;
            out.push(u8::try_from(u32::from(kind - b'0') * 64 + code).ok()?);
            return Some(rest);
        }
        b'u' | b'U' => {
            let (code, rest) = digits(rest, if kind == b'u' { 4 } else { 8 }, 16)?;
            out.extend_from_slice(char::from_u32(code)?.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(rest);
        }
        _ => return None,
    };
    out.push(simple);
    Some(rest)
}

fn digits(bytes: &[u8], count: usize, radix: u32) -> Option<(u32, &[u8])> {
    let (text, rest) = bytes.split_at_checked(count)?;
    let mut code = 0u32;
    for &digit in text {
        code = code.checked_mul(radix)?.checked_add(char::from(digit).to_digit(radix)?)?;
    }
    Some((code, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Printed by Go 1.26's strconv.Quote and json.Marshal.
    #[test]
    fn quotes_as_go() {
        let cases: [(&[u8], &str); 8] = [
            (b"plain name", "plain name"),
            (b"\"\\", r#"\"\\"#),
            (b"\x07\x08\x0c\n\r\t\x0b\x00\x7f", r"\a\b\f\n\r\t\v\x00\x7f"),
            (b"\xff\xfe", r"\xff\xfe"),
            (b"\xed\xa0\x80", r"\xed\xa0\x80"),
            ("\u{a0}\u{ad}\u{200b}\u{2028}".as_bytes(), r"\u00a0\u00ad\u200b\u2028"),
            ("ä💯\u{fffd}".as_bytes(), "ä💯\u{fffd}"),
            ("\u{e0001}".as_bytes(), r"\U000e0001"),
        ];
        for (name, quoted) in cases {
            assert_eq!(String::from_utf8(quote(name)).unwrap(), quoted);
            assert_eq!(unquote(quoted).unwrap(), name);
        }
        let mut json = Vec::new();
        write_json_string(&mut json, b"a\x08\x0c\xff\xe2\x80\xa8<>&\x01\x7f\"\\/");
        assert_eq!(
            String::from_utf8(json).unwrap(),
            r#""a\b\f\ufffd\u2028\u003c\u003e\u0026\u0001"#.to_owned() + "\x7f\\\"\\\\/\""
        );
    }

    #[test]
    fn unquote_accepts_every_go_escape_and_nothing_else() {
        assert_eq!(unquote(r"\101\x4A\x4a\u004a\U0000004A").unwrap(), b"AJJJJ");
        for bad in ["\"", "\n", r"\", r"\x4", r"\q", r"\400", r"\ud800", r"\U00110000", r"\'"] {
            assert!(unquote(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn unquote_reverses_quote(name: Vec<u8>) {
            let quoted = String::from_utf8(quote(&name)).unwrap();
            prop_assert_eq!(unquote(&quoted).unwrap(), name);
        }

        #[test]
        fn json_strings_are_valid_json(text: String) {
            let mut json = Vec::new();
            write_json_string(&mut json, text.as_bytes());
            prop_assert_eq!(serde_json::from_slice::<String>(&json).unwrap(), text);
        }
    }
}
