//! Percent-encoding of URLs, undone. Pure.

/// The bytes that are meant; `None` when a `%` is not followed by two hexadecimal digits.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let mut digit = || bytes.next().and_then(|d| char::from(d).to_digit(16)).and_then(|d| u8::try_from(d).ok());
        out.push(digit()? << 4 | digit()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hexadecimal_digits_are_a_byte() {
        for (text, expect) in [
            ("", Some(&b""[..])),
            ("a+b", Some(b"a+b")),
            ("%2e%2E%00", Some(b"..\0")),
            ("%c3%a9", Some("é".as_bytes())),
            ("%", None),
            ("%2", None),
            ("%2g", None),
            ("%+f", None),
            ("%é", None),
        ] {
            assert_eq!(decode(text).as_deref(), expect, "{text}");
        }
    }
}
