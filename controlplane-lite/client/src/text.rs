//! Texts that hold words of others (names, answers of the server), cut to lengths that the API's readers and our memory
//! bear: whoever writes an object may put a megabyte into one word of it. Pure.

/// Bytes of an event's message: upstream's NoteLengthLimit (pkg/apis/core/validation/events.go).
pub const EVENT_MESSAGE: usize = 1024;
/// Bytes of a condition's message: `maxLength` in apimachinery's meta/v1 Condition.
pub const CONDITION_MESSAGE: usize = 32_768;
/// Bytes of a name: a DNS subdomain.
pub const NAME: usize = 253;

const SUFFIX: &str = " ...";

/// The text, or as much of it as fits with a sign that there is more, as upstream's truncateMessage
/// (pkg/scheduler/schedule_one.go).
pub fn cut(text: impl Into<String>, bytes: usize) -> String {
    let mut text = text.into();
    if text.len() > bytes {
        truncate(&mut text, bytes.saturating_sub(SUFFIX.len()));
        text.push_str(SUFFIX);
        text.shrink_to_fit();
    }
    text
}

/// Cuts without a sign, for what is read by programs.
pub fn truncate(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let end = (0..=bytes).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.shrink_to_fit();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_and_the_rest_is_cut_between_characters() {
        for (text, bytes, want) in [
            ("", 8, ""),
            ("12345678", 8, "12345678"),
            ("123456789", 8, "1234 ..."),
            ("123äö6789", 8, "123 ..."),
            ("äöüß", 8, "äöüß"),
        ] {
            assert_eq!(cut(text, bytes), want);
        }
        let mut text = "aä".to_owned();
        truncate(&mut text, 2);
        assert_eq!(text, "a");
    }
}
