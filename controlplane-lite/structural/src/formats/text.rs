//! Formats of numbers, colours and names (`strfmt/{default,kubernetes-extensions}.go` and `govalidator` upstream).

/// Twelve bytes in hexadecimal digits.
pub(super) fn is_bson_object_id(text: &str) -> bool {
    text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// 32 hexadecimal digits in groups, with or without dashes; some versions say their number and variant.
pub(super) fn is_uuid(text: &str, version: Option<char>, variant: bool) -> bool {
    let mut rest = text;
    for (index, length) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if index > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        let Some(group) = rest.get(..length) else { return false };
        let fits = group.bytes().all(|b| b.is_ascii_hexdigit())
            && (index != 2 || version.is_none_or(|version| group.starts_with(version)))
            && (index != 3 || !variant || group.starts_with(['8', '9', 'a', 'b', 'A', 'B']));
        if !fits {
            return false;
        }
        rest = &rest[length..];
    }
    rest.is_empty()
}

/// Without white space and dashes.
fn compact(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, '\t' | '\n' | '\u{c}' | '\r' | ' ' | '-')).collect()
}

fn digit(byte: u8) -> u32 {
    u32::from(byte - b'0')
}

pub(super) fn is_isbn10(text: &str) -> bool {
    let text = compact(text);
    let bytes = text.as_bytes();
    let [first @ .., last] = bytes else { return false };
    if bytes.len() != 10 || !first.iter().all(u8::is_ascii_digit) || !(last.is_ascii_digit() || *last == b'X') {
        return false;
    }
    let sum: u32 = (1..).zip(first).map(|(weight, byte)| weight * digit(*byte)).sum();
    let check = if *last == b'X' { 10 } else { digit(*last) };
    (sum + 10 * check).is_multiple_of(11)
}

pub(super) fn is_isbn13(text: &str) -> bool {
    let text = compact(text);
    let bytes = text.as_bytes();
    if bytes.len() != 13 || !bytes.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let sum: u32 = bytes.iter().zip([1, 3].into_iter().cycle()).map(|(byte, weight)| weight * digit(*byte)).sum();
    sum.is_multiple_of(10)
}

/// A number of one of the issuers' ranges, with the digit that checks it.
pub(super) fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_digit).collect();
    let number =
        |length: usize| digits.iter().take(length).fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    let (one, two, three, four) = (number(1), number(2), number(3), number(4));
    let known = match digits.len() {
        13 => one == 4,
        14 => matches!(three, 300..=305) || matches!(two, 36 | 38),
        15 => matches!(two, 34 | 37) || matches!(four, 2131 | 1800),
        16 => one == 4 || matches!(two, 51..=55) || four == 6011 || matches!(two, 35 | 65),
        _ => false,
    };
    let doubled = |digit: u32| if digit >= 5 { digit * 2 - 9 } else { digit * 2 };
    let weighted = digits.iter().rev().map(|digit| u32::from(digit - b'0')).enumerate();
    known && weighted.map(|(at, digit)| if at % 2 == 1 { doubled(digit) } else { digit }).sum::<u32>() % 10 == 0
}

/// Three, two and four digits with a dash or a blank between.
pub(super) fn is_ssn(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 11
        && bytes.iter().enumerate().all(|(at, byte)| match at {
            3 | 6 => matches!(byte, b'-' | b' '),
            _ => byte.is_ascii_digit(),
        })
}

pub(super) fn is_hex_color(text: &str) -> bool {
    let digits = text.strip_prefix('#').unwrap_or(text);
    matches!(digits.len(), 3 | 6) && digits.bytes().all(|b| b.is_ascii_hexdigit())
}

pub(super) fn is_rgb_color(text: &str) -> bool {
    let Some(inner) = text.strip_prefix("rgb(").and_then(|rest| rest.strip_suffix(')')) else { return false };
    let part = |part: &str| {
        let part = part.trim_matches(['\t', '\n', '\u{c}', '\r', ' ']);
        let plain = part.bytes().all(|b| b.is_ascii_digit()) && !(part.len() > 1 && part.starts_with('0'));
        plain && part.parse::<u8>().is_ok()
    };
    let mut parts = inner.split(',');
    parts.by_ref().take(3).filter(|text| part(text)).count() == 3 && parts.next().is_none()
}

/// Groups of four of the standard alphabet, the last padded.
pub(super) fn is_base64(text: &str) -> bool {
    let bytes = text.as_bytes();
    let padding = bytes.iter().rev().take_while(|b| **b == b'=').count();
    !bytes.is_empty()
        && bytes.len().is_multiple_of(4)
        && padding <= 2
        && bytes[..bytes.len() - padding].iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/'))
}

/// Small letters, digits and dashes, the last not at the ends.
pub(super) fn is_short_name(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}
