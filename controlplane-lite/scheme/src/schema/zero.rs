//! Which scalar fields say nothing with their zero value: one fact per field, for JSON, protobuf and all who compare
//! objects. Fields that are pointers in Go are not among them: their zero is a value.

/// Lines of a type and its fields, sorted by type after the comments.
static PLAIN: &str = include_str!("plain.txt");

/// Whether the zero value of this field is left out: writing it out (`hostNetwork: false`) means the same as leaving
/// it out.
pub(super) fn drops(ty: &str, field: &str) -> bool {
    super::find(PLAIN, ty).is_some_and(|fields| fields.split(' ').any(|f| f == field))
}

/// All of the table.
#[cfg(test)]
pub(super) fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = PLAIN.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(' '))
}
