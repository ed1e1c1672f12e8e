//! Where a value is, built on the stack, and printed as `k8s.io/kube-openapi/pkg/validation/validate` prints it:
//! `spec.list[0].name`, and `.key` for an entry of a map at the root.

/// One step; each borrows the one above.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Location<'a> {
    Root,
    Field(&'a Location<'a>, &'a str),
    Entry(&'a Location<'a>, &'a str),
    Index(&'a Location<'a>, usize),
}

impl Location<'_> {
    pub(crate) const fn is_root(&self) -> bool {
        matches!(self, Self::Root)
    }

    fn print(&self, out: &mut String) {
        match self {
            Self::Root => {}
            Self::Field(parent, name) | Self::Entry(parent, name) => {
                parent.print(out);
                if matches!(self, Self::Entry(..)) || !out.is_empty() {
                    out.push('.');
                }
                out.push_str(name);
            }
            Self::Index(parent, index) => {
                parent.print(out);
                out.push_str(&format!("[{index}]"));
            }
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        self.print(&mut out);
        out
    }
}
